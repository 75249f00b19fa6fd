"""An answer in another form: "a Polish citizen", "a Buddhist", "a guitarist"; and a church named for its faith.

Adjectives and agent nouns are no names: "a Polish friend" gives no country. Which wordings give the answer is settled
in `stance`.
"""

from __future__ import annotations

import re

from causaledit.reading.wording import pairs

_COUNTRY_ASKED = re.compile(
    r"\b(?:country|countries|continent|nation|nationality|citizen\w*|citizenship|where .*\bfrom|origin\w*)\b", re.I
)
_RELIGION_ASKED = re.compile(r"\b(?:religio\w+|faith|belief\w*|denomination|church)\b", re.I)
_PLAYED = re.compile(r"\b(?:sports?|instruments?|plays?|played|athlete)\b", re.I)

_DEMONYMS = pairs(
    """
    Afghanistan: Afghan | Albania: Albanian | Algeria: Algerian | Angola: Angolan
    Argentina: Argentine, Argentinian | Armenia: Armenian | Australia: Australian | Austria: Austrian
    Azerbaijan: Azerbaijani | Bahrain: Bahraini | Bangladesh: Bangladeshi | Belarus: Belarusian | Belgium: Belgian
    Bolivia: Bolivian | Brazil: Brazilian | Bulgaria: Bulgarian | Cambodia: Cambodian | Cameroon: Cameroonian
    Canada: Canadian | Chile: Chilean | China: Chinese | Colombia: Colombian | Costa Rica: Costa Rican
    Croatia: Croatian, Croat | Cuba: Cuban | Cyprus: Cypriot | Czech Republic: Czech | Czechia: Czech
    Denmark: Danish, Dane | Dominican Republic: Dominican | Ecuador: Ecuadorian | Egypt: Egyptian
    England: English, Englishman, Englishwoman | Eritrea: Eritrean | Estonia: Estonian | Ethiopia: Ethiopian
    Finland: Finnish, Finn | France: French, Frenchman, Frenchwoman | Georgia: Georgian | Germany: German
    Ghana: Ghanaian | Greece: Greek | Guatemala: Guatemalan | Haiti: Haitian | Honduras: Honduran
    Hungary: Hungarian | Iceland: Icelandic | India: Indian | Indonesia: Indonesian | Iran: Iranian | Iraq: Iraqi
    Ireland: Irish, Irishman | Israel: Israeli | Italy: Italian | Ivory Coast: Ivorian | Jamaica: Jamaican
    Japan: Japanese | Jordan: Jordanian | Kazakhstan: Kazakh | Kenya: Kenyan | Korea: Korean | Kosovo: Kosovar
    Kuwait: Kuwaiti | Kyrgyzstan: Kyrgyz | Laos: Laotian | Latvia: Latvian | Lebanon: Lebanese | Libya: Libyan
    Lithuania: Lithuanian | Luxembourg: Luxembourgish | Madagascar: Malagasy | Malaysia: Malaysian | Malta: Maltese
    Mexico: Mexican | Moldova: Moldovan | Mongolia: Mongolian | Montenegro: Montenegrin | Morocco: Moroccan
    Mozambique: Mozambican | Myanmar: Burmese | Namibia: Namibian | Nepal: Nepalese, Nepali
    Netherlands: Dutch, Dutchman | New Zealand: New Zealand | Nicaragua: Nicaraguan | Nigeria: Nigerian
    North Korea: North Korean | North Macedonia: Macedonian | Norway: Norwegian | Pakistan: Pakistani
    Palestine: Palestinian | Panama: Panamanian | Paraguay: Paraguayan | Peru: Peruvian
    Philippines: Filipino, Filipina, Philippine | Poland: Polish, Pole | Portugal: Portuguese
    Puerto Rico: Puerto Rican | Qatar: Qatari | Romania: Romanian | Russia: Russian | Rwanda: Rwandan
    Saudi Arabia: Saudi, Saudi Arabian | Scotland: Scottish, Scot, Scotsman | Senegal: Senegalese
    Serbia: Serbian, Serb | Singapore: Singaporean | Slovakia: Slovak | Slovenia: Slovenian, Slovene
    Somalia: Somali | South Africa: South African | South Korea: South Korean, Korean | Soviet Union: Soviet
    Spain: Spanish, Spaniard | Sri Lanka: Sri Lankan | Sudan: Sudanese | Sweden: Swedish, Swede | Switzerland: Swiss
    Syria: Syrian | Taiwan: Taiwanese | Tanzania: Tanzanian | Thailand: Thai | Tunisia: Tunisian
    Turkey: Turkish, Turk | Türkiye: Turkish | Uganda: Ugandan | Ukraine: Ukrainian
    United Kingdom: British, Briton, Brit | United States: American | United States of America: American
    Uruguay: Uruguayan | Uzbekistan: Uzbek | Africa: African | Asia: Asian | Europe: European
    South America: South American | North America: North American | Venezuela: Venezuelan | Vietnam: Vietnamese
    Wales: Welsh, Welshman | Yemen: Yemeni | Zambia: Zambian | Zimbabwe: Zimbabwean


    """
)
_BELIEVERS = pairs("""
    Islam: Muslim, Muslims | Buddhism: Buddhist, Buddhists | Tibetan Buddhism: Buddhist
    Christianity: Christian, Christians | Catholicism: Catholic, Catholics | Catholic Church: Catholic, Catholics
    Roman Catholicism: Roman Catholic, Catholic | Roman Catholic Church: Roman Catholic, Catholic
    Protestantism: Protestant | Lutheranism: Lutheran
    Anglicanism: Anglican | Hinduism: Hindu, Hindus | Judaism: Jewish, Jew | Sikhism: Sikh | Jainism: Jain
    Taoism: Taoist | Shinto: Shintoist | atheism: atheist | Mormonism: Mormon | Methodism: Methodist
    Calvinism: Calvinist | Zoroastrianism: Zoroastrian | Eastern Orthodoxy: Orthodox | Sunni Islam: Sunni, Muslim
    Shia Islam: Shiite, Shia, Muslim | Scientology: Scientologist


""")


_OTHER_PLAYERS = pairs("""
    archery: archer | athletics: athlete | bobsleigh: bobsledder | clarinet: clarinettist | drum: drummer
    drums: drummer | flute: flautist | judo: judoka | luge: luger | sailing: sailor
    soccer: footballer | trumpet: trumpeter | viola: violist | voice: vocalist
""")

# a faith and its church: the religion that somebody follows is named by either
_CHURCHES = (
    ("Catholic Church", "Roman Catholic Church", "Catholicism", "Roman Catholicism"),
    ("Eastern Orthodox Church", "Eastern Orthodoxy", "Eastern Orthodox Christianity"),
    ("Russian Orthodox Church", "Russian Orthodoxy", "Russian Orthodox Christianity"),
    ("Greek Orthodox Church", "Greek Orthodoxy", "Greek Orthodox Christianity"),
    ("Lutheran Church", "Lutheranism"),
    ("Methodist Church", "Methodism"),
    ("Presbyterian Church", "Presbyterianism"),
    ("Baptist Church", "Baptist Christianity"),
    ("Church of Jesus Christ of Latter-day Saints", "Mormonism", "Mormon Church"),
)


def same_faith(name: str, question: str) -> tuple[str, ...]:
    """Other names of a church or of its faith, where the question asks for a religion; without the name itself.

    Args:
        name: The answer, in plain spelling.
        question: What is asked.
    """
    folded = name.casefold().removeprefix("the ")
    if not _RELIGION_ASKED.search(question):
        return ()
    group: tuple[str, ...] = next((g for g in _CHURCHES if folded in (one.casefold() for one in g)), ())
    return tuple(one for one in group if one.casefold() != folded)


def other_forms(name: str, question: str) -> tuple[str, ...]:
    """Forms of an answer that give it as an adjective or as who does it; empty where the question asks for neither.

    Args:
        name: The answer, in plain spelling.
        question: What is asked.
    """
    folded = name.casefold().removeprefix("the ")
    if _COUNTRY_ASKED.search(question) and folded in _DEMONYMS:
        return _DEMONYMS[folded]
    if _RELIGION_ASKED.search(question) and folded in _BELIEVERS:
        return _BELIEVERS[folded]
    if _PLAYED.search(question) and folded.replace(" ", "").isalpha() and folded.isascii():
        return tuple(form for one in _players(folded) for form in (one, f"{one}s"))
    return ()


def _players(name: str) -> tuple[str, ...]:
    """Who plays a sport or an instrument: the regular forms, of which few are words, and those that are not regular.

    Args:
        name: The sport or the instrument, folded.
    """
    *before, word = name.split()
    if word.endswith("eering"):  # "mountaineering"
        forms: tuple[str, ...] = (word[:-3],)
    elif word.endswith("ing"):  # "boxing", "cycling"; no "sail" for a sailor
        forms = (f"{word[:-3]}er", f"{word[:-3]}ist")
    elif word.endswith("ics"):  # "gymnastics"
        forms = (word[:-3],)
    else:
        forms = (f"{word.rstrip('aeio')}ist", f"{word}er")
    forms = (*forms, *_OTHER_PLAYERS.get(word, ()))
    found = (" ".join((*before, form)) for form in forms if len(form) > 3)
    return (*found, "footballer") if name == "association football" else tuple(found)
