"""The labelled release's official split, and how its 894 class names fall into the 40 and the 13 classes.

Split: `splits.mat` of the release (Silberman et al., ECCV 2012). 40 classes: `classMapping40.mat` (Gupta et al., CVPR
2013). 13 classes: Couprie et al., ICLR 2013, reached through the 40. Names are spelled as in the release
(`refridgerator`), and a class is always found by NAME: which number a name has is told by each file's own `names`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from densebnn.registry import UserError, nearest

__all__ = [
    "FORTY",
    "RELEASE_FRAMES",
    "THIRTEEN",
    "ClassMapping",
    "class_names",
    "ignore_index",
    "label_table",
    "official_split",
    "parse_ranges",
    "thirteen_of_forty",
]


def parse_ranges(text: str) -> npt.NDArray[np.int64]:
    """Return the numbers of a text such as `"3-8, 10, 12-13"`, in its order; both ends of a range are included."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return np.array(numbers, dtype=np.int64)


def _split_names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated text; inside a name every space counts."""
    return tuple(name.strip() for name in text.split(","))


RELEASE_FRAMES = 1449
"""Frames of the genuine release: 795 for training, 654 for testing."""

# 1-based, as in splits.mat. The test frames are all the others.
_TRAIN = """
3-8, 10-13, 19-20, 22-27, 44-45, 48-55, 58, 64-75, 80-83, 92-116, 120-124, 130, 135-136, 138-152, 156-166, 170, 177-179,
203-206, 213-219, 223-249, 251-263, 265-270, 274-278, 286-295, 303-309, 313-314, 318-324, 336-350, 353-354, 365-383,
391-394, 398-410, 415-429, 436-440, 449-461, 467-468, 478-507, 514, 527-530, 534-536, 540-548, 552-554, 572-578,
584-590, 595-602, 608-611, 614-616, 622-632, 639-643, 646-649, 652-655, 659-662, 665-667, 674-675, 682-685, 691-692,
695-696, 700-705, 714-716, 719-723, 729-730, 735-742, 745-758, 788-799, 805-809, 815-820, 824-832, 847-849, 853-856,
863-868, 872-905, 909-916, 920-925, 929-931, 936-944, 948-958, 963-964, 968-969, 978-990, 996-1000, 1005-1009,
1013-1020, 1024-1031, 1035-1037, 1040-1047, 1050-1051, 1054-1056, 1059-1074, 1085-1087, 1097, 1105, 1110-1116,
1120-1122, 1132-1134, 1137-1143, 1159-1161, 1168-1169, 1172-1173, 1177-1178, 1185-1191, 1197-1200, 1213-1215, 1221-1225,
1231-1232, 1236-1246, 1251-1253, 1266-1274, 1281-1284, 1296, 1300-1301, 1309-1313, 1316-1328, 1333-1334, 1341-1346,
1350-1352, 1357-1363, 1366-1367, 1370-1383, 1392-1393, 1402-1406, 1415-1420, 1425-1429, 1434-1440
"""

FORTY: tuple[str, ...] = _split_names("""
wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, shelves,
curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refridgerator, television, paper, towel,
shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, otherstructure, otherfurniture,
otherprop
""")
"""The 40 classes, in the order of their ids 1..40."""

THIRTEEN: tuple[str, ...] = _split_names("""
bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window
""")
"""The 13 classes, in the order of their ids 1..13."""

# For each of FORTY the position in THIRTEEN, counted from 1.
_FORTY_TO_THIRTEEN = parse_ranges("""
12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5, 7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7,
7, 7, 6, 7
""")

# Three of the forty gather many names; each of the other 37 consists of the one name that it carries. Double spaces are
# the release's own.
_GATHERED = {
    "otherstructure": """
dishwasher, air vent, track light, air duct, bar, projector screen, green screen, mantel, light, mail shelf,
air conditioner, column, cable rack, circuit breaker box, towel rod, mailshelf, stairs, glass rack, gate, blackboard,
oven, spice rack, stove, spice stand, wall stand, light switch, water fountain, chandelier, lighting track, phone jack,
fireplace, range hood, classroom board, board, glass pane, banister, kitchen island, iron grill, window frame, railing,
tree sculpture, electric box, wooden pillar, drain, window cover, curtain rod, baby gate, door way, glass, door frame,
door  window  reflection, storage space, door facing trimreflection, doorreflection, light switchreflection,
door curtain, shower base, window shelf, door way arch, grill, chimney, window seat, window box, fish tank, garage door,
reflection of window shutters, floor trim, mantle
""",
    "otherfurniture": """
garbage bin, stacked chairs, ladder, stand, room divider, flipboard, heater, headboard, foot rest, drawer, crate, bench,
clothing hanger, dolly, trolly, bookrack, radiator, drying rack, washing machine, tv stand, piano, ironing board,
barrel, chest, coffee table, ottoman, stroller, chart stand, filing shelves, bassinet, toys shelf, educational display,
storage shelvesbooks, toys rack, display board, stacked plastic racks, storage rack, excercise equipment, treadmill,
piano bench, grandfather clock, desk drawer, file stand, crib, doll house, cradle, baby chair, clothing dryer,
clothing washer, water cooler, foosball table, pool table, trampoline, furniture, display case, cloth drying stand,
furnace, drying stand, clothing drying rack, excercise machine, mattress, cat cage, cat bed, ping pong table, dog cage,
file box, clothing hamper, wardrobe, bean bag, wall divider, luggage rack, bunk bed, storage chest, slide, playpen,
music stand, desser, tent, dog bed, indoor fountain, lectern, doily
""",
    "otherprop": """
book, bottle, cone, faucet, fire extinguisher, microwave, paper towel dispenser, pot, stove burner, unknown, bowl,
magnet, door knob, scissor, tape dispenser, telephone cord, telephone, cork board, cup, laptop, basket, camera, pipe,
styrofoam object, computer, keyboard, monitor, motion camera, speaker, clock, ball, hole puncher, manilla envelope,
printer, stapler, fax machine, folder, jar, magazine, ruler, cable modem, fan, file, hand sanitizer, paper rack, vase,
flower, plant, stereo, exit sign, projector, modem, wire, water purifier, hooks, hanging hooks, pen, electrical outlet,
doll, eraser, pencil holder, water carboy, mouse, wire rack, map, paper cutter, tape, thermostat, paper towel, stamp,
duster, poster case, whiteboard marker, ethernet jack, hair brush, makeup brush, toiletries bag, toothbrush holder,
toothbrush, toothpaste, platter, rug, squeeze tube, shower cap, soap, candle, tissue box, toilet paper, container,
electric toothbrush, drum, flower pot, banana, candlestick, shoe, stool, urn, earplugs, placemat, excercise ball,
alarm clock, deoderant, headphones, basketball hoop, laundry basket, sock, football, mens suit, cable box, dvd player,
shaver, contact lens solution bottle, remote control, cologne, stuffed animal, lint roller, tray, lock, purse,
toy bottle, vasoline, gift wrapping roll, wall decoration, hookah, radio, bicycle, pen box, mask, shorts, hat,
hockey glove, hockey stick, vuvuzela, dvd, chessboard, suitcase, calculator, flashcard, staple remover, umbrella,
yoga mat, backpack, cd, sign, hangers, notebook, hanger, security camera, folders, saucer, tag, machine,
shopping baskets, coffee bag, coffee packet, hot water heater, muffins, napkin dispenser, plaque, plastic tub, plate,
coffee machine, napkin holder, coffee grinder, plant pot, scarf, tea kettle, napkin, bag of chips, bread, cutting board,
dish brush, serving spoon, sponge, toaster, cooking pan, kitchen items, ladel, spatula, trivet, knife rack, knife,
baking dish, dish scrubber, vessel, kichen towel, tin foil, kitchen utensil, utensil, blender, garbage bag,
sink protector, box of ziplock bags, spice bottle, pitcher, pizza box, toaster oven, step stool, vegetable peeler,
can opener, can of food, paper towel holder, spoon stand, spoon, wooden kitchen utensils, bag of flour, fruit,
sheet of metal, waffle maker, cake, cell phone, tablecloth, wine glass, sculpture, iphone, coke bottle, wine rack,
guitar, shirts in hanger, router, glass pot, cart, vacuum cleaner, bin, coins, hand sculpture, ipod, jersey, blanket,
pen stand, mens tie, glass baking dish, utensils, frying pan, shopping cart, plastic bowl, wooden container, onion,
potato, jacket, dvds, surge protector, tumbler, broom, can, crock pot, salt shaker, wine bottle, apple, eye glasses,
menorah, bicycle helmet, fire alarm, humidifier, necklace, decanter, wooden utensils, globe, sheets, fork, napkin ring,
gift wrapping, bed sheets, spot light, cannister, mortar and pestle, stack of plates, server, salt container,
utensil container, switchbox, casserole dish, oven handle, whisk, dish cover, electric mixer, decorative platter,
drawer handle, bookend, table runner, typewriter, ashtray, key, suit jacket, cleaning wipes, six pack of beer,
decorative plate, watch, balloon, ipad, coaster, whiteboard eraser, toy, toys basket, toy truck, picture of fish,
plastic box, pencil, carton, walkie talkie, binder, coat hanger, plastic crate, plastic rack, plastic tray, flag,
poster board, lunch bag, leg of a girl, file holder, chart, cardboard tube, toy car, toy shelf, toy bin, placard,
soft toy group, soft toy, toy cube, toy cylinder, toy rectangle, toy triangle, bucket, chalkboard, game table,
toy cuboid, toy tree, wooden toy, toy box, toy phone, toy sink, toyhouse, notecards, toy trucks,
wall hand sanitizer dispenser, cap stand, music stereo, lid of jar, stacked bins  boxes, roll of paper towels, cables,
power surge, cardboard sheet, show piece, pepper shaker, ornamental plant, sheet music, pen holder, toy doll,
globe stand, telescope, magazine holder, file container, paper holder, flower box, pyramid, desk mat, cordless phone,
envelope, id card, paper weight, toy plane, money, papers, comforter, toy chair, toy sofa, plastic chair, toy house,
child carrier, cloth bag, chart roll, toys box, laundry detergent jug, clothing detergent, bottle of soap, box of paper,
trolley, hand sanitizer dispenser, soap holder, water dispenser, photo, crayon, hoola hoop, horse toy,
plastic toy container, game system, pool sticks, console system, video game, pool ball, tricycle, wii, alarm, toy table,
ornamental item, copper vessel, stick, car, mezuza, toy cash register, lid, paper bundle, business cards, clipboard,
flatbed scanner, paper tray, mouse pad, basketball, fiberglass case, framed certificate, cordless telephone, shofar,
trophy, cleaner, piece of wood, cane, iron box, sheet, rope, sticks, wooden planks, toilet plunger, bar of soap,
toilet bowl brush, light bulb, faucet handle, nailclipper, shaving cream, rolled carpet, clothing iron,
charger and wire, quilt, hair dryer, stones, pepper grinder, dish rack, calendar, head phones, cd disc, head phone,
usb drive, water heater, pan, tuna cans, spoon sets, cans of cat food, cat, flower basket, fruit platter, grapefruit,
kiwi, hand blender, knobs, vessels, cell phone charger, wire basket, tub of tupperware, candelabra, litter box, shovel,
belt, surge protect, console controller, shoe rack, computer disk, briefcase, mail tray, file pad, letter stand,
plastic cup of coffee, glass box, ping pong ball, ping pong racket, tennis racket, ping pong racquet, xbox,
electric toothbrush base, toilet brush, toiletries, razor, bottle of contact lens solution, contact lens case, cream,
glass container, container of skin cream, soap dish, scale, soap stand, cactus, ceramic frog, incense candle, door lock,
toilet paper holder, tissue, personal care liquid, shower head, shower knob, knob, cream tube, perfume box, perfume,
back scrubber, medicine tube, wallet, soap tray, shower pipe, face wash cream, flashlight, shower hose,
toothpaste holder, soap box, incense holder, conch shell, roll of toilet paper, shower tube, bottle of listerine,
bottle of hand wash liquid, tea pot, lazy susan, avocado, fruit stand, fruitplate, oil container, package of water,
bottle of liquid, jug, bulb, bagel, bag of bagels, banana peel, bag of oreo, flask, collander, brick, torch, dog bowl,
wooden plank, eggs, dog, orange plastic cap, glass set, vessel set, mellon, aluminium foil, orange, peach, tea coaster,
butterfly sculpture, corkscrew, heating tray, food processor, corn, squash, watermellon, vegetables, celery, glass dish,
hot dogs, plastic dish, vegetable, sticker, chapstick, sifter, fruit basket, glove, measuring cup, water filter,
wine accessory, dishes, ornamental pot, dog toy, salt and pepper, electrical kettle, kitchen container plastic,
pineapple, suger jar, steamer, charger, mug holder, orange juicer, juicer, bag of hot dog buns, hamburger bun,
mug hanger, bottle of ketchup, toy kitchen, food wrapped on a tray, kitchen utensils, oven mitt, bottle of comet,
wooden utensil, decorative dish, handle, label, flask set, cooking pot cover, tupperware, garlic, tissue roll, lemon,
wine, decorative bottle, wire tray, tea cannister, guitar case, boomerang, button, karate belts, medal, necklace holder,
beeper, webcam, luggage, life jacket, shoelace, pen cup, eyeball plastic ball, toy pyramid, model boat, certificate,
puppy toy, wire board, quill, canister, toy boat, antenna, lint comb, travel bag, toy chest, headband, lego, yarmulka,
package of bedroom sheets, bedding package, comb, dollar bill, pig, storage bin, electronic drumset, ipod dock,
microphone, music keyboard, microphone stand, album, kinect, inkwell, baseball, decorative bowl, book holder, toy horse,
toy apple, toy dog, scenary, drawer knob, shoe hanger, figurine, soccer ball, hand weight, magic 8ball,
bottle of perfume, sleeping bag, decoration item, envelopes, trinket, hand fan, sculpture of the chrysler building,
sculpture of the eiffel tower, sculpture of the empire state building, jeans, case, rags, decorative item, toy stroller,
shelf frame, cat house, can of beer, lamp shade, bracelet, decorative egg, photo album, decorative candle, walkietalkie,
serving dish, mini display platform, american flag, vhs tapes, throw, newspapers, package of bottled water,
serving platter, display platter, centerpiece, tea box, gold piece, wreathe, hammer, matchbox, pepper, yellow pepper,
duck, eggplant, glass ware, sewing machine, rolled up rug, coffee pot, torah
""",
}


def _official_ids() -> dict[str, int]:
    """Return the id 1..40 of each of the 894 names."""
    ids = {name: number for number, name in enumerate(FORTY, 1) if name not in _GATHERED}
    for gathering, text in _GATHERED.items():
        ids.update(dict.fromkeys(_split_names(text), FORTY.index(gathering) + 1))
    return ids


@dataclass(frozen=True)
class ClassMapping:
    """How release names fall into 40 classes; the default is the official table.

    Attributes:
        names: The 40 class names, in the order of their ids 1..40.
        ids: Release name -> id 1..40.
        origin: Where the mapping comes from, for messages.
    """

    names: tuple[str, ...] = FORTY
    ids: Mapping[str, int] = field(default_factory=_official_ids)
    origin: str = "the table of the 894 names of NYU Depth V2"


def official_split(name: Literal["train", "test"]) -> npt.NDArray[np.int64]:
    """Return the 1-based frame numbers of the official `"train"` (795) or `"test"` (654) split, ascending."""
    train = parse_ranges(_TRAIN)
    return train if name == "train" else np.setdiff1d(np.arange(1, RELEASE_FRAMES + 1), train)


def ignore_index(classes: int) -> int:
    """Return the label of pixels that carry no class: 255, or 65535 for all names (`classes=894`)."""
    return 65535 if classes == 894 else 255


def class_names(names: Sequence[str], classes: int, mapping: ClassMapping | None = None) -> tuple[str, ...]:
    """Return the names of classes 0, 1, ...; `classes=894` means each of the file's own `names`."""
    if classes == 894:
        return tuple(names)
    return THIRTEEN if classes == 13 else (mapping or ClassMapping()).names


def label_table(
    names: Sequence[str], classes: int, mapping: ClassMapping | None = None, file: object = "the file"
) -> npt.NDArray[np.generic]:
    """Return the lookup from label ids of the release to class ids.

    Args:
        names: The `names` of the file: label id k means `names[k - 1]`, id 0 means unlabelled.
        classes: 40, 13 or 894 (each name its own class, numbered as in `names`).
        mapping: Instead of the official one; not used for 894.
        file: What to call the file in the message.

    Returns:
        (len(names) + 1,) array, uint8 (int32 for 894): the 0-based class of each id, `ignore_index(classes)` for id 0.

    Raises:
        UserError: Some of `names` are not in the mapping (up to five are listed).
    """
    if classes == 894:
        return np.concatenate(([ignore_index(894)], np.arange(len(names)))).astype(np.int32)
    mapping = mapping or ClassMapping()
    unknown = [name for name in names if name not in mapping.ids]
    if unknown:
        shown = ", ".join(repr(name) + nearest(name, mapping.ids) for name in unknown[:5])
        raise UserError(
            f"{file}: {len(unknown)} of {len(names)} label names are not in {mapping.origin}: {shown}; "
            "give class_mapping= (a classMapping40.mat that knows them) or use classes=894"
        )
    forty = np.array([mapping.ids[name] for name in names], dtype=np.int64)
    ids = _FORTY_TO_THIRTEEN[forty - 1] if classes == 13 else forty
    return np.concatenate(([ignore_index(classes)], ids - 1)).astype(np.uint8)


def thirteen_of_forty() -> npt.NDArray[np.uint8]:
    """Return the (256,) lookup from a 0-based class of the 40 to one of the 13; 255 wherever there is none."""
    table = np.full(256, 255, dtype=np.uint8)
    table[: len(FORTY)] = _FORTY_TO_THIRTEEN - 1
    return table
