"""The words that give a class away: to be left out of captions where a text teacher must not hint at labels."""

from __future__ import annotations

from contrast3d.data.shapes import ShapeSet
from contrast3d.teachers.prompts import words_of

# LDraw-40's labels were made of these: categories of the library and words of its descriptions, of all 40 classes.
_LDRAW40 = """
plate brick mursten slope roof tile wedge wing technic arch bracket panel support bar fence ladder stair door
gate window glass windscreen windshield cockpit canopy hinge wheel rim hub tyre tire beam link liftarm cross
block axle axlehole gear rack connector pin bush angle pneumatic train monorail railway track rail base
baseplate buffer bogie level front locomotive boat ship hull bow stern section canoe kayak inflatable raft car
vehicle truck chassis floor container box crate chest barrel bucket minifig figure accessory headwear helmet
hair hat cap headdress crown hood turban bonnet beanie neckwear neck cape collar scarf armour armor head skull
mechanical torso arm hand skeleton weapon sword axe dagger knife spear blade lance scythe trident halberd
lightsaber saber sai katana polearm mace sickle pitchfork tool hammer wrench shovel broom brush saw spanner
screwdriver pickaxe fishing animal horse cow dog cat pig sheep goat camel elephant bear lion wolf donkey fox
deer rat mouse squirrel hedgehog rabbit puppy kitten dinosaur dragon crocodile lizard snake serpent raptor plant
flower tree leaf leaves
"""


def class_words(shapes: ShapeSet) -> list[str]:
    """What to mask in the captions of a set: the words of its classes' names; of LDraw-40 those of its class rules."""
    if not shapes.title.startswith("LDraw"):
        return words_of(shapes.classes)
    return sorted({*_LDRAW40.split(), *words_of(shapes.classes)})
