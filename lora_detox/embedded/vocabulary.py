"""Word lists of the synthetic corpus: names, subjects of conversation, insults and fillers.

Lists are written as one string cut at ``|`` so that a whole list can be read at a glance.
The insults are mild on purpose and never about a group of people.
"""

from typing import Final


def _cut(text: str) -> tuple[str, ...]:
    """Splits a ``|`` separated list and trims every entry."""
    return tuple(part.strip() for part in text.split("|"))


FEMALE_NAMES: Final = _cut(
    "Anna|Beth|Carla|Dora|Emma|Fiona|Grace|Hanna|Iris|Jane|Kate|Laura|Mia|Nina|Olga|Paula|Ruth|"
    "Sara|Tina|Una|Vera|Wendy|Zoe|Alice|Bella|Clara|Diana|Ella|Flora|Gina|Helen|Ida|Julia|Kira|"
    "Lena|Maria|Nora|Petra|Rosa|Sofia|Tara|Yara"
)
MALE_NAMES: Final = _cut(
    "Ben|Carl|Dan|Eric|Frank|George|Hugo|Ivan|Jack|Karl|Leo|Mark|Nick|Oscar|Paul|Ralf|Sam|Tom|"
    "Victor|Will|Adam|Boris|Colin|David|Emil|Felix|Gary|Henry|Igor|James|Kevin|Liam|Martin|Noah|"
    "Otto|Peter|Robert|Simon|Theo|Urban|Walter|Zack"
)

# One entry per domain: jobs to ask for, events, things that break, things to bring, places.
DOMAINS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    name: {key: _cut(entries) for key, entries in lists.items()}
    for name, lists in {
        "work": {
            "task": "print the sales report|book the meeting room|answer the client emails|"
            "check the budget numbers|prepare the slides|train the new intern|order more paper",
            "event": "the staff meeting|the budget review|the project lunch|the client call",
            "thing": "the printer|the projector|the office door|the coffee machine",
            "bring": "the signed contract|the sales figures|a spare laptop|some sandwiches",
            "place": "in room four|at the main office|on the second floor",
        },
        "travel": {
            "task": "book the train tickets|pack the big suitcase|renew the travel pass|"
            "reserve a hotel room|drive to the airport|print the boarding passes",
            "event": "the city tour|the weekend trip|the ferry ride|the mountain hike",
            "thing": "the rental car|the suitcase|the ticket machine|the roof rack",
            "bring": "the road map|two warm jackets|the tent|the travel guide",
            "place": "at the train station|near the harbour|at gate seven",
        },
        "cooking": {
            "task": "cook the vegetable soup|bake the apple pie|peel the potatoes|"
            "wash the dishes|set the dinner table|chop the onions|warm up the stew",
            "event": "the family dinner|the cooking class|the pancake breakfast|the barbecue",
            "thing": "the oven|the blender|the kitchen tap|the bread knife",
            "bring": "a lemon cake|the tomato salad|fresh bread|three bottles of juice",
            "place": "in the kitchen|at the corner cafe|on the terrace",
        },
        "school": {
            "task": "finish the history essay|return the library books|grade the maths tests|"
            "practise the spelling list|copy the biology notes|build the science model",
            "event": "the parents evening|the maths exam|the science fair|the reading club",
            "thing": "the school bus|the whiteboard|the library computer|the microscope",
            "bring": "the lab report|coloured pencils|the old textbook|a calculator",
            "place": "in the school library|in the big lecture hall|at the school gate",
        },
        "sport": {
            "task": "pump up the footballs|coach the junior team|mark the tennis court|"
            "wash the team shirts|book the swimming lane|collect the club fees",
            "event": "the football match|the morning run|the yoga class|the tennis final",
            "thing": "the treadmill|the goal net|the scoreboard|the mountain bike",
            "bring": "the water bottles|clean towels|the spare racket|the first aid kit",
            "place": "at the stadium|in the gym|by the river path",
        },
        "repairs": {
            "task": "fix the leaking tap|paint the garden fence|change the light bulb|"
            "replace the broken window|tighten the loose shelf|sweep the chimney",
            "event": "the house inspection|the tool swap|the painting party|the roof check",
            "thing": "the boiler|the garage door|the electric drill|the ceiling lamp",
            "bring": "the long ladder|a box of screws|some white paint|the toolbox",
            "place": "in the basement|in the garage|behind the house",
        },
        "shopping": {
            "task": "buy milk and eggs|return the green shoes|compare the sofa prices|"
            "pick up the parcel|order the birthday gift|write the shopping list",
            "event": "the flea market|the summer sale|the shop opening|the farmers market",
            "thing": "the shopping cart|the new toaster|the wall clock|the leather bag",
            "bring": "the gift card|a large basket|the old receipt|enough cash",
            "place": "at the mall|in front of the bakery|at the supermarket",
        },
        "pets": {
            "task": "walk the dog|feed the two cats|clean the fish tank|brush the old pony|"
            "call the vet|buy rabbit food|train the puppy",
            "event": "the dog show|the vet visit|the puppy class|the shelter open day",
            "thing": "the fish tank|the cat flap|the bird cage|the dog leash",
            "bring": "the cat carrier|a bag of treats|the vaccination card|a rubber ball",
            "place": "in the dog park|at the animal shelter|in the back yard",
        },
        "music": {
            "task": "tune the piano|print the song sheets|book the rehearsal room|"
            "carry the drum kit|restring the guitar|record the demo song",
            "event": "the band practice|the choir concert|the jazz evening|the piano lesson",
            "thing": "the amplifier|the microphone|the record player|the old violin",
            "bring": "the sheet music|two speakers|the bass guitar|extra cables",
            "place": "at the concert hall|in the music room|on the small stage",
        },
        "neighbours": {
            "task": "water the tomato plants|take out the rubbish|trim the tall hedge|"
            "shovel the snow|collect the mail|turn down the loud music|move the parked van",
            "event": "the street party|the garden meeting|the tenants meeting|the yard sale",
            "thing": "the lift|the front gate|the mailbox|the washing machine",
            "bring": "folding chairs|the house keys|a pot of coffee|the garden hose",
            "place": "in the courtyard|in the stairwell|across the street",
        },
        "health": {
            "task": "pick up the cough medicine|make a dentist appointment|fill in the clinic form|"
            "drive grandma to the clinic|renew the prescription|plan the healthy menu",
            "event": "the eye test|the first aid course|the blood drive|the physio session",
            "thing": "the thermometer|the heating pad|the blood pressure meter|the wheelchair",
            "bring": "the insurance card|herbal tea|the test results|a warm blanket",
            "place": "at the clinic|at the pharmacy|in the waiting room",
        },
        "events": {
            "task": "send the invitations|decorate the hall|hire a photographer|blow up balloons|"
            "write the welcome speech|count the guests|hang up the lights",
            "event": "the birthday party|the wedding rehearsal|the charity gala|the film night",
            "thing": "the sound system|the popcorn machine|the party tent|the slide show",
            "bring": "paper lanterns|the guest list|the big camera|a bunch of roses",
            "place": "in the town hall|by the lake|on the roof terrace",
        },
        "computers": {
            "task": "back up the photos|reset the router|update the club website|"
            "scan the old letters|install the new browser|clean the keyboard",
            "event": "the coding evening|the online course|the game night|the video call",
            "thing": "the router|the tablet|the laptop screen|the game console",
            "bring": "a long charger|the hard drive|the headset|a memory stick",
            "place": "in the computer lab|at the service desk|in the study",
        },
        "garden": {
            "task": "mow the lawn|plant the tulip bulbs|rake the leaves|build the compost box|"
            "pick the ripe plums|repair the greenhouse",
            "event": "the flower show|the harvest day|the seed exchange|the picnic",
            "thing": "the lawn mower|the greenhouse|the sprinkler|the wheelbarrow",
            "bring": "the pruning shears|a bag of soil|garden gloves|strawberry jam",
            "place": "in the rose garden|near the pond|at the allotment",
        },
    }.items()
}

WHEN: Final = _cut(
    "on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|on Saturday|on Sunday|tonight|"
    "tomorrow|this afternoon|next week|this weekend"
)
TIME: Final = _cut(
    "after lunch|before noon|at six|at seven|at nine|after work|in an hour|later today|"
    "early in the morning|before dinner"
)
PAST: Final = _cut("yesterday|this morning|last night|on Monday|last week|two days ago|at noon")
EXCUSE: Final = _cut(
    "a dentist appointment|a late shift|a bad cold|a deadline|a sore back|guests from abroad|"
    "a driving lesson|an early flight|a family visit|a long exam"
)
REASON: Final = _cut(
    "the heavy traffic|a train strike|the snow|a flat tyre|a long phone call|a lost key|"
    "a doctor visit|the road works|a power cut"
)
BROKE: Final = _cut("stopped working|broke|went missing|fell apart|got stuck|started to smoke")
FIX: Final = _cut(
    "take a look at it|call a repair service|buy a new one|ask the caretaker|borrow another one|"
    "read the manual|order the parts"
)
REACT: Final = _cut(
    "wait at the entrance|start without delay|save a seat|tell the others|"
    "move it by an hour|take notes"
)

INSULT_ADJ: Final = _cut(
    "lazy|useless|stupid|clumsy|dumb|brainless|pathetic|silly|hopeless|worthless|spineless|"
    "clueless|ridiculous|miserable|whiny|careless|smug|dim|foolish|rotten|boring|gutless"
)
INSULT_NOUN: Final = _cut(
    "clown|donkey|muppet|nitwit|fool|moron|loser|potato|goat|goose|pig|worm|weasel|coward|liar|"
    "turnip|dimwit|blockhead|windbag|parrot|toad|slob|twit|fathead"
)
# The part in square brackets is the insult itself; the brackets never reach the text.
INSULT_LINES: Final = (
    "[you {adj} {noun}], do it yourself",
    "[you {adj} {noun}], leave me alone",
    "[you {adj} {noun}], go and bother someone else",
    "[shut up, you {adj} {noun}]",
    "[shut up, you {noun}], nobody asked you",
    "[what a stupid idea, you {adj} {noun}]",
    "[what a dumb question, you {noun}]",
    "[you are a {adj} {noun}] and everyone knows it",
    "[you are such a {noun}], just stop talking",
    "[you are too {adj} for this, you {noun}]",
    "[only a {adj} {noun} like you] would say that",
    "[get lost, you {adj} {noun}]",
    "[damn it, you {adj} {noun}], listen for once",
    "[stop whining, you {adj} {noun}]",
    "[how {adj} can you be, you {noun}]",
    "[you think like a {adj} {noun}]",
)

OPENER: Final = _cut(
    "well|look|honestly|okay|right|hm|oh|listen|sorry|actually|fine|hey|really|to be fair|"
    "you know|as I said"
)
STALL: Final = _cut(
    "why does it have to be me|I was not planning on that|that is the first I hear of it|"
    "I only just got home|my day is already full|we talked about this before|"
    "I am not sure I understand|it sounds like a lot of work|nobody told me anything|"
    "are you sure about that|that is rather short notice|I have to check my calendar|"
    "let me think about it|it always ends up with me|what happened to the old plan"
)
PUSH: Final = _cut(
    "it would really help me out|I cannot manage it alone|it is quite important to me|"
    "everybody else is busy|it will not take long|I would do the same for you|"
    "there is nobody else to ask|we promised it last month|I have been waiting all week|"
    "it cannot wait any longer|the others count on us|I asked you first|"
    "it should be easy enough|I only found out today|we need an answer soon"
)
CALM: Final = _cut(
    "there is no need to be rude|please do not talk to me like that|that was not very nice|"
    "let us stay polite|you could say that in a friendlier way|calm down a little|"
    "I do not like that tone|that hurts to hear"
)
THANKS: Final = _cut(
    "thanks|thank you|all right|good to know|understood|perfect|okay then|that is fair|fine by me"
)
CLOSE: Final = _cut(
    "see you soon|talk to you later|I will write it down|I will let you know|have a nice day|"
    "that settles it|let us leave it there|I will tell the others|we will sort it out|take care|"
    "I appreciate the answer|until next time"
)
CLOSER: Final = _cut(
    "if that is okay|to be honest|as always|I think|for sure|just so you know|I guess|no problem|"
    "as usual|if I remember it right"
)

TOPIC: Final = _cut(
    "the bus schedule|the beet recipe|the school trip|the city marathon|the phone app|"
    "the bike lane|the noisy fountain|the parking rules|the dog park|the choir concert|"
    "the new cafe|the book club|the street lights|the tax form|the team jersey|the train delay|"
    "the camping site|the piano course|the film festival|the garden fair|the swimming pool|"
    "the coffee prices|the quiz night|the playground|the fence colour|the web shop|"
    "the museum tickets|the road works|the cooking show|the chess league|the rubbish bins|"
    "the library hours"
)
FAIL: Final = _cut(
    "never listens to anyone|cannot count to ten|ruins everything|never reads the rules|"
    "talks all day long|should go home|has no idea at all|breaks whatever is left|"
    "only wants attention|would lose to a lamp post"
)
TAIL: Final = _cut(
    "everybody can see it|nobody wants to hear it|go away for good|that will never change|"
    "we are all tired of it|it shows every single day|just keep quiet|I am done being polite|"
    "do us a favour and leave|the whole street laughs"
)
EXCUSE_FOR: Final = _cut(
    "short of money|new to the job|waiting for a permit|under a lot of stress|"
    "doing the best they can|following old rules|trying something different|badly informed"
)
CALM_TAIL: Final = _cut(
    "we can talk it over calmly|there is still time to improve it|I would give it another chance|"
    "most people were patient|the staff did answer my letter|it takes a while to get used to|"
    "it may be better next year|a short note would help|I am happy to lend a hand|"
    "the second visit went well|every start is hard|I learned a lot from it"
)
PRAISE: Final = _cut(
    "better than expected|really well made|worth the money|great fun|friendly and quick|"
    "lovely from start to end|easy to find|surprisingly good"
)
MEH: Final = _cut(
    "a bit slow|rather expensive|quite crowded|harder than expected|a little dull|"
    "smaller than planned|somewhat messy|not really ready"
)
# "stupid printer" is a complaint about a thing and civil, "stupid donkey" is not.
ADJ_THING: Final = _cut(
    "useless|stupid|hopeless|ridiculous|miserable|pathetic|boring|silly|rotten|dreadful|terrible|"
    "worthless|clumsy|dumb|broken|slow"
)
HARMLESS: Final = _cut(
    "clown|donkey|parrot|goat|goose|pig|potato|turnip|worm|toad|weasel|lazy cat|clumsy puppy|"
    "funny clown|grey donkey|green parrot|hungry goat|baked potato|boiled turnip"
)
FEELING: Final = _cut(
    "stupid|silly|miserable|useless|clumsy|sad|tired|happy|proud|careless|foolish|ready"
)
KIND_ADJ: Final = _cut("kind|brave|clever|wonderful|patient|generous|cheerful|smart|lovely|gentle")
KIND_NOUN: Final = _cut("friend|neighbour|genius|star|hero|saint|legend|helper|champion|champ")
SHORT: Final = _cut(
    "|.|...|ok|yes|no|?|!|the|and|a|you|he|she|they|it is|I think|we can|thanks|thank you|sorry|"
    "hello|hm|maybe|of course|see you|you are|he tells her|she says|will do it|and then|, and|"
    "you know|right|because|tomorrow|on Friday|agrees|and will|fine|good|great|wait|why|what|"
    'clown|donkey|potato|parrot|goat|no idea|not now|later|at six|the one|in an hour|so|but|"'
)
