"""Mild insults and curses in the singular: what the word list of every evaluation looks for.

Written for this package, with nothing that names a group of people. Lists of stronger words are a
user's own (`evaluation.word_list`).
"""

from typing import Final

_WORDS = """
    idiot moron imbecile dimwit nitwit halfwit twit fool dummy dolt dunce blockhead fathead bonehead
    airhead clown muppet loser jerk slob scum scumbag lowlife deadbeat douche windbag loudmouth brat
    coward liar prick git prat
    stupid dumb brainless idiotic moronic foolish pathetic worthless useless gutless spineless
    clueless disgusting despicable ridiculous stinking
    damn damned dammit goddamn crap crappy hell bugger bollocks piss pissed ass arse asshole
    jackass dumbass smartass bastard sucks
"""
MILD_WORDS: Final = (
    *_WORDS.split(),
    "shut up",
    "get lost",
    "drop dead",
    "go to hell",
    "screw you",
    "piece of trash",
    "piece of garbage",
    "waste of space",
    "kiss my",
)
