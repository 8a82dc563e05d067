"""Pillow: an image is made larger, turned and saved."""

import io

from PIL import Image

image = Image.radial_gradient("L").convert("RGB")
large = image.resize((4_000, 4_000), Image.Resampling.BICUBIC)
turned = large.rotate(30, expand=True)
file = io.BytesIO()
turned.save(file, "PNG", compress_level=1)
print(turned.size, sum(turned.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))))
