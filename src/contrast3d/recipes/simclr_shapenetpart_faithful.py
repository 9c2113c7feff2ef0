"""Bernini (2022) as the report's code really ran, defects included, on ten categories of ShapeNetPart.

    contrast3d pretrain simclr-shapenetpart-faithful --data-root FOLDER
    contrast3d evaluate linear-report runs/simclr-shapenetpart-faithful --data-root FOLDER

The report: 45 % top-1 on the official test split after 50 epochs (majority class 30.8 %). Its views were
one cloud, its augmentation one draw per batch, its probe a sigmoid before the cross entropy on an encoder in
training mode; each is a field here or the protocol `linear-report`. One difference remains: the report's first run
took at most 300 shapes of a class.
"""

from contrast3d.data.shapenetpart import REPORT_CATEGORIES
from contrast3d.recipes.contrast import ContrastRecipe

RECIPE = ContrastRecipe(
    dataset="ShapeNetPart", categories=REPORT_CATEGORIES, up="y", shape_points=1024, num_points=800,
    augmentation="report-replacement", shared_draws=True, identical_views=True,
    encoder="dgcnn-report", embed_dim=128, k=20, projection_dim=10, hidden_dim=256, head_norm=False, temperature=0.07,
    epochs=50, batch_size=32, optimizer="adam", lr=1e-3, weight_decay=0.0, schedule="step", step_epochs=20,
    warmup_epochs=0.0,
)
