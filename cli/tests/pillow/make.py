"""Makes what photos are held to: small images, and what Pillow makes of them.

    pip install "pillow==11.3.0" && python make.py

Pillow 11.3 resizes along the rows first, as all before it; 13.0 takes the columns first in images
that are higher than wide, which changes a pixel in five by a count or more.
"""

from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent


def noise(count):
    state, values = 1, bytearray()
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append(state >> 56)
    return bytes(values)


def drawn(width, height, pixel):
    values = (pixel(x, y) for y in range(height) for x in range(width))
    return Image.frombytes("RGB", (width, height), bytes(v for rgb in values for v in rgb))


IMAGES = {
    "noise": Image.frombytes("RGB", (19, 27), noise(19 * 27 * 3)),
    "gradient": drawn(61, 43, lambda x, y: (x * 255 // 60, y * 255 // 42, (x + y) * 255 // 102)),
    "edges": drawn(59, 37, lambda x, y: (
        (x // 7 + y // 5) % 2 * 255,
        (x * y % 17 < 8) * 255,
        ((x - 30) ** 2 + (y - 18) ** 2 < 200) * 255,
    )),
}
# Smaller, larger, one axis alone, one up and one down, a fifth.
SIZES = {
    "noise": [(13, 18), (29, 40), (19, 11), (26, 9), (4, 5)],
    "gradient": [(31, 21), (85, 61), (61, 16), (30, 50), (12, 8)],
    "edges": [(29, 18), (83, 51), (59, 20), (30, 50), (12, 8)],
}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

for name, image in IMAGES.items():
    image.save(HERE / f"{name}.png", optimize=True)
    for width, height in SIZES[name]:
        for filter, resampling in FILTERS.items():
            resized = image.resize((width, height), resampling)
            resized.save(HERE / f"{name}_{width}x{height}_{filter}.png", optimize=True)

# The sizes and corners of torchvision's Resize and CenterCrop: its formulas in its own language.
with open(HERE / "crops.txt", "w") as file:
    file.write("# photo, --resize, --size: resized to, left and top of what is cut out\n")
    for width, height in [(256, 256), (500, 375), (375, 500), (640, 427), (4032, 3024), (333, 500),
                          (257, 256), (256, 259), (261, 256), (1, 60), (224, 2240), (1000, 7)]:
        for resize, size in [(256, 224), (272, 240), (232, 225), (224, 224), (255, 224)]:
            short, long = sorted((width, height))
            new = resize, int(resize * long / short)
            w, h = new if width <= height else new[::-1]
            left, top = int(round((w - size) / 2.0)), int(round((h - size) / 2.0))
            file.write(f"{width}x{height} {resize} {size}: {w}x{h} {left} {top}\n")
