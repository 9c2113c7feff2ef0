"""PointContrast on the fused fragments of 3DMatch, one scene kept to be registered; sized for a CPU.

    contrast3d pretrain point-contrast-3dmatch --data-root FOLDER
    contrast3d evaluate registration runs/point-contrast-3dmatch --data-root FOLDER

With hotel_uc, hotel_umd and mit_lab to train on, 22 minutes on a thread: feature-match recall on home_md 60.5 +- 2.6 %
(three seeds), FPFH 44.8, untrained 1.8.
"""

from contrast3d.recipes.scene_contrast import SceneRecipe

RECIPE = SceneRecipe(
    dataset="3DMatch", test_scenes=("home_md",), voxel_size=0.05, depth=14, width=0.5, temperature=0.1, max_angle=45.0,
    num_pairs=2048, epochs=50, steps=100, batch_size=2, optimizer="adamw", lr=3e-3, weight_decay=0.01,
)
