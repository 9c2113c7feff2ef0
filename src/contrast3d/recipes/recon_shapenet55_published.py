"""ReCon as published (Qi et al., ICML 2023): ShapeNet55, test shapes and names of classes included.

    contrast3d pretrain recon-shapenet55-published --data-root FOLDER
    contrast3d evaluate svm-released runs/recon-shapenet55-published --dataset ModelNet40 --data-root FOLDER

Expected: linear SVM on ModelNet40 93.4 (92.4 was measured with the public weights); fine-tuned on ScanObjectNN's
PB_T50_RS 90.63, of eight seeds the best and of its epochs the best on test. Teachers are read from weights/ in the
working folder, as transformers saves them; images are our own renders instead of ShapeNet's. 301 epochs of 409 steps.
"""

from contrast3d.recipes.masked import MaskedRecipe

RECIPE = MaskedRecipe(
    method="recon", dataset="ShapeNet55", with_test_shapes=True, image_teacher="weights/vit-base-patch16-224-in21k",
    text_teacher="weights/clip-vit-base-patch32", captions="class-prompts", teacher_views=60, shape_points=8192,
    num_points=1024, augmentation="rotate-up", epochs=301, batch_size=128, lr=5e-4, schedule="cosine-epochs",
    warmup_epochs=10.0, probe_every=25,
)
