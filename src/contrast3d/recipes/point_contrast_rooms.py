"""PointContrast on generated rooms: offline, no download, minutes on two cores.

    contrast3d pretrain point-contrast-rooms
"""

from contrast3d.recipes.scene_contrast import SceneRecipe

RECIPE = SceneRecipe(
    dataset="Rooms", voxel_size=0.05, width=0.5, rooms=60, frames=16, epochs=20, steps=25, batch_size=4, lr=0.1,
)
