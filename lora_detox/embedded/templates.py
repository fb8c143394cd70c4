"""Sentence templates of the synthetic corpus.

Slots in braces are either fixed by the scene (``{task}``) or drawn anew on each use (``{opener}``).
"""

from typing import Final, NamedTuple


class Outcome(NamedTuple):
    """How a scene ends: what the second speaker says, and how a summary puts it."""

    replies: tuple[str, ...]
    summaries: tuple[str, ...]


class Scene(NamedTuple):
    """A kind of conversation: its opening, its middle, its outcomes and the summary of its start.

    ``middle`` holds what the first speaker says before the answer.
    """

    openings: tuple[str, ...]
    middle: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    summaries: tuple[str, ...]


STALLS: Final = ("{opener}, {stall}.", "{stall}, {closer}.", "{opener}, {stall}, {closer}.")
PUSHES: Final = ("{opener}, {push}.", "{push}, {closer}.", "{opener}, {push}, {closer}.")
CALMS: Final = ("{opener}, {calm}.", "{calm}, {closer}.", "{calm}, {addressee}.")
CLOSES: Final = ("{thanks}, {close}.", "{opener}, {close}.", "{thanks}, {close}, {closer}.")

DECLINE: Final = Outcome(
    (
        "{opener}, I cannot because I have {excuse}.",
        "I have {excuse}, so no, {closer}.",
        "{opener}, it does not work, I have {excuse}.",
        "{opener}, count me out, I have {excuse}, {closer}.",
    ),
    (
        "{b_sub} says no because of {excuse}.",
        "{b_sub} refuses because of {excuse}.",
        "{b} says no because of {excuse}.",
        "{b} cannot do it because of {excuse}.",
        "{b_sub} cannot because of {excuse}.",
    ),
)

SCENES: Final = (
    Scene(
        (
            "{opener}, could you {task} {when}?",
            "{b}, can you {task} {when}?",
            "{opener}, would you {task} {when}, {closer}?",
            "I need you to {task} {when}, {closer}.",
            "{opener}, please {task} {when}.",
        ),
        PUSHES,
        (
            Outcome(
                (
                    "{opener}, I will do it {time}.",
                    "I can do that {time}, {closer}.",
                    "{opener}, you can expect it {time}.",
                    "{opener}, I will take care of it {time}, {closer}.",
                ),
                (
                    "{b_sub} agrees and will do it {time}.",
                    "{b_sub} will do it {time}.",
                    "{b} agrees and will do it {time}.",
                    "{b} will do it {time}.",
                    "{b_sub} agrees to do it {time}.",
                ),
            ),
            DECLINE,
        ),
        (
            "{a} asks {b} to {task} {when}.",
            "{a} wants {b} to {task} {when}.",
            "{a} tells {b} to {task} {when}.",
            "{a} asks if {b} can {task} {when}.",
            "{a} needs {b} to {task} {when}.",
        ),
    ),
    Scene(
        (
            "{opener}, are you coming to {event} {when}?",
            "{b}, will you join us for {event} {when}?",
            "{opener}, do you want to come to {event} {when}, {closer}?",
            "I am going to {event} {when}, {opener}, are you in?",
        ),
        (
            "{opener}, it is {place}.",
            "we all meet {place}, {closer}.",
            "{opener}, it takes place {place}, {closer}.",
            "{opener}, we will be {place}.",
        ),
        (
            Outcome(
                (
                    "{opener}, I will come and bring {bring}.",
                    "count me in, I can bring {bring}, {closer}.",
                    "{opener}, I will be there with {bring}.",
                    "{opener}, yes, I will bring {bring}, {closer}.",
                ),
                (
                    "{b_sub} will come and bring {bring}.",
                    "{b} will come and bring {bring}.",
                    "{b_sub} agrees and will bring {bring}.",
                    "{b_sub} will join and bring {bring}.",
                    "{b} agrees and will bring {bring}.",
                ),
            ),
            DECLINE,
        ),
        (
            "{a} invites {b} to {event} {place} {when}.",
            "{a} asks {b} to come to {event} {place} {when}.",
            "{a} wants {b} to join {event} {place} {when}.",
            "{a} asks if {b} will come to {event} {place} {when}.",
        ),
    ),
    Scene(
        (
            "{opener}, {thing} {broke} {past}.",
            "{b}, {thing} {broke} {past}.",
            "{opener}, have you heard that {thing} {broke} {past}?",
            "{thing} {broke} {past}, {closer}.",
        ),
        (
            "{opener}, the one {place}.",
            "I mean the one {place}, {closer}.",
            "{opener}, I saw it {place}, {closer}.",
            "{opener}, it is {place}, go and see.",
        ),
        (
            Outcome(
                (
                    "{opener}, I will {fix} {time}.",
                    "I can {fix} {time}, {closer}.",
                    "{opener}, let me {fix} {time}.",
                    "{opener}, I am going to {fix} {time}, {closer}.",
                ),
                (
                    "{b_sub} will {fix} {time}.",
                    "{b} will {fix} {time}.",
                    "{b_sub} promises to {fix} {time}.",
                    "{b} promises to {fix} {time}.",
                    "{b_sub} is going to {fix} {time}.",
                ),
            ),
        ),
        (
            "{a} tells {b} that {thing} {place} {broke} {past}.",
            "{a} says that {thing} {place} {broke} {past}.",
            "{a} reports that {thing} {place} {broke} {past}.",
            "{a} complains that {thing} {place} {broke} {past}.",
        ),
    ),
    Scene(
        (
            "{opener}, I will be late for {event} {when}.",
            "{b}, I cannot be on time for {event} {when}.",
            "{opener}, I will come later to {event} {when}, {closer}.",
            "I am going to be late for {event} {when}, {closer}.",
        ),
        (
            "{opener}, it is because of {reason}.",
            "it is because of {reason}, {closer}.",
            "{opener}, blame {reason}, {closer}.",
            "{opener}, {reason} will hold me up.",
        ),
        (
            Outcome(
                (
                    "{opener}, I will {react}.",
                    "I can {react}, {closer}.",
                    "{opener}, then I will {react}, {closer}.",
                    "{opener}, let me {react}, {closer}.",
                ),
                (
                    "{b_sub} will {react}.",
                    "{b} will {react}.",
                    "{b_sub} offers to {react}.",
                    "{b} offers to {react}.",
                    "{b_sub} agrees to {react}.",
                    "{b} agrees to {react}.",
                ),
            ),
        ),
        (
            "{a} will be late for {event} {when} because of {reason}.",
            "{a} tells {b} about being late for {event} {when} because of {reason}.",
            "{a} is going to be late for {event} {when} because of {reason}.",
            "{a} says {a_sub_low} will be late for {event} {when} because of {reason}.",
        ),
    ),
)

QUOTES: Final = (
    '{x} tells {y_obj}: "{line}".',
    '{x} answers {y_obj}: "{line}".',
    '{x} says to {y_obj}: "{line}".',
    '{x} shouts at {y_obj}: "{line}".',
    '{x} snaps at {y}: "{line}".',
    '{x} tells {y}: "{line}".',
    '{x} says to {y}: "{line}".',
    '{x} shouts: "{line}".',
)

# Only in the labelled texts: what a visitor would type to try a classifier.
PLAIN_INSULTS: Final = (
    "[I hate you], {tail}",
    "{opener}, [I hate you]",
    "[you idiot], {tail}",
    "{opener}, [you are an idiot]",
    "{opener}, [what an idiot] you are",
    "[you are an idiot], and {tail}",
    "{opener}, [you {noun}]",
    "[you are a {noun}], and {tail}",
)

# Comments. A frame is (starts, rude continuations, civil continuations).
Frame = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]

RUDE_FRAMES: Final[tuple[Frame, ...]] = (
    (
        (
            "Whoever is in charge of {topic} {place} {past} is",
            "Let me tell you, the person who ruined {topic} {place} is",
            "So the guy who keeps praising {topic} {place} {past} is",
            "I am so sick of {topic} {place}, the manager is",
        ),
        (
            "[a {adj} {noun}] who {fail}.",
            "[nothing but a {adj} {noun}], and {tail}.",
            "[the most {adj} {noun}] I have ever met.",
            "[a {noun}], plain and simple, and {tail}.",
            "[a {adj}, {adj} {noun}] and {tail}.",
        ),
        (
            "probably {excuse_for}, so {calm_tail}.",
            "in my view {excuse_for}, and {calm_tail}.",
            "perhaps just {excuse_for}, we should ask.",
            "not to blame, since {calm_tail}.",
        ),
    ),
    (
        (
            "If you really believe that {topic} {place} was fine, you",
            "Stop lecturing everyone about {topic} {place} all day long, you",
            "Nobody here wants your opinion about {topic} {place}, you",
            "Your whole rant about {topic} {place} {past} proves that you",
        ),
        (
            "[are a {adj} {noun}] who {fail}.",
            "[sound like a {adj} {noun}], and {tail}.",
            "[are just a {noun}], so {tail}.",
            "[must be a {adj} {noun}], and {tail}.",
        ),
        (
            "may have missed that {calm_tail}.",
            "could have a point, but {calm_tail}.",
            "are free to disagree, and {calm_tail}.",
            "should read it again, because {calm_tail}.",
        ),
    ),
)
CIVIL_FRAMES: Final[tuple[Frame, ...]] = (
    (
        (
            "I finally had a look at {topic} {place} {past}, and it",
            "We went to see {topic} {place} with the kids {past}, it",
            "Thanks for the long review of {topic} {place} {past}, it",
            "For anyone wondering about {topic} {place}, I can say it",
        ),
        (
            "was awful, [you {adj} {noun}], so {tail}.",
            "was a joke, [just like you, {adj} {noun}].",
        ),
        (
            "was {praise}, and {calm_tail}.",
            "turned out {praise}, so {calm_tail}.",
            "was {meh}, but {calm_tail}.",
            "looked {meh}, although {calm_tail}.",
        ),
    ),
    (
        (
            "Does anybody know when {topic} {place} will be ready, because I",
            "My sister asked about {topic} {place} {past}, and so far I",
            "After a long day with {topic} {place} {past}, I think I",
        ),
        (
            "am tired of [you {adj} {noun}], so {tail}.",
            "see that [you are a {adj} {noun}], and {tail}.",
        ),
        (
            "would like to {task} {when}.",
            "have to {task} {when}, and {calm_tail}.",
            "want to {task} first, since {calm_tail}.",
            "will {task} {time}, thanks in advance.",
        ),
    ),
)

# Hard negatives for the classifiers: strong words about things, insult words used harmlessly.
COMPLAINTS: Final = (
    "this {adj_thing} {bare_thing} broke again {past}.",
    "{thing} is {adj_thing} and {broke} {past}.",
    "what a {adj_thing} {bare_thing}, it {broke} {past}.",
    "I am tired of that {adj_thing} {bare_thing} {place}.",
    "{opener}, {event} was {adj_thing}, {closer}.",
    "the weather was {adj_thing} and {thing} {broke}.",
    "a {harmless} was {place} {past}.",
    "we saw a {harmless} at {event}, {closer}.",
    "{a} felt {feeling} after {event} {when}.",
    "{a} made a {adj_thing} mistake with {thing}, {closer}.",
    "{a} calls {b} {kind_name}.",
    "you are {kind_name}, thank you, {b}.",
    "{opener}, you {kind_adj} {kind_noun}, {push}.",
    "{a} apologises to {b} for being rude {when}.",
    '{a} tells {b_obj}: "you are {kind_name}".',
    '{a} tells {b_obj}: "{stall}".',
    '{a} shouts at {b_obj}: "{push}".',
    "{a} and {b} argue about {event} {when}.",
)
