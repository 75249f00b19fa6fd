"""LoRA: supervised fine-tuning of an adapter on the new answer's tokens, merged afterwards."""
