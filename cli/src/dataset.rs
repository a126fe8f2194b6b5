//! Images and labels in the IDX format of MNIST, gzipped.

use std::io::Read;

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;

/// Grey images, one byte a pixel, and their classes.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub pixels: Vec<u8>,
    pub labels: Vec<u8>,
    pub side: usize,
}

const IMAGES_MAGIC: u32 = 0x0000_0803;
const LABELS_MAGIC: u32 = 0x0000_0801;
/// Many times what any set of this kind holds; a small file could claim to unpack to anything.
const MOST_ITEMS: usize = 1_000_000;

impl Dataset {
    /// Images of `side` x `side` pixels and labels below `classes`, from two gzip files of these
    /// names.
    pub(crate) fn load(
        images: &[u8],
        labels: &[u8],
        side: usize,
        classes: usize,
        [image_file, label_file]: [String; 2],
    ) -> Result<Self> {
        let of_images = || format!("{image_file}: images");
        let of_labels = || format!("{label_file}: labels");
        let (images, pixels) = idx(images, IMAGES_MAGIC, [side, side]).with_context(of_images)?;
        let (count, labels) = idx(labels, LABELS_MAGIC, []).with_context(of_labels)?;
        ensure!(images > 0, "{}: the file holds no image", of_images());
        ensure!(images == count, "{}: expected {images}, one an image, found {count}", of_labels());
        if let Some(i) = labels.iter().position(|&label| usize::from(label) >= classes) {
            bail!(
                "{}: expected classes below {classes}, found {} for image {i}",
                of_labels(),
                labels[i]
            );
        }
        Ok(Self { pixels, labels, side })
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn truncate(&mut self, count: usize) {
        self.labels.truncate(count);
        self.pixels.truncate(count * self.side * self.side);
    }

    pub(crate) fn image(&self, index: usize) -> &[u8] {
        let size = self.side * self.side;
        &self.pixels[index * size..(index + 1) * size]
    }
}

/// Number of items of a gzipped IDX file, each of the sizes `item`, and their bytes.
fn idx<const AXES: usize>(
    file: &[u8],
    magic: u32,
    item: [usize; AXES],
) -> Result<(usize, Vec<u8>)> {
    let mut reader = GzDecoder::new(file);
    let mut word = || -> Result<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).context("not a complete gzip file")?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word()?;
    ensure!(found == magic, "expected the IDX magic number {magic:#010x}, found {found:#010x}");
    let count = word()? as usize;
    let mut sizes = [0; AXES];
    for size in &mut sizes {
        *size = word()? as usize;
    }
    ensure!(sizes == item, "expected items of {item:?}, found {sizes:?}");
    ensure!(count <= MOST_ITEMS, "expected at most {MOST_ITEMS} items, found {count}");
    let expected = item.iter().product::<usize>() * count;
    // One byte more than expected, so that a longer file shows; memory grows with what is really
    // there.
    let mut bytes = Vec::new();
    reader.take(expected as u64 + 1).read_to_end(&mut bytes).context("not a complete gzip file")?;
    ensure!(
        bytes.len() == expected,
        "expected {expected} bytes after the header, found {}",
        bytes.len()
    );
    Ok((count, bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("writes to memory");
        encoder.finish().expect("writes to memory")
    }

    fn file(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let header: Vec<u8> =
            [magic].iter().chain(sizes).flat_map(|word| word.to_be_bytes()).collect();
        gzip(&[&header, data].concat())
    }

    fn names() -> [String; 2] {
        ["a.gz", "b.gz"].map(String::from)
    }

    #[test]
    fn a_small_file_is_read() {
        let images = file(IMAGES_MAGIC, &[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
        let labels = file(LABELS_MAGIC, &[2], &[0, 9]);
        let data = Dataset::load(&images, &labels, 2, 10, names()).expect("valid");
        assert_eq!((data.len(), data.image(1)), (2, &[5, 6, 7, 8][..]));
    }

    #[test]
    fn each_fault_is_named() {
        let images = file(IMAGES_MAGIC, &[1, 2, 2], &[1, 2, 3, 4]);
        let labels = file(LABELS_MAGIC, &[1], &[0]);
        let cases = [
            (
                images[..images.len() / 2].to_vec(),
                labels.clone(),
                "images: not a complete gzip file",
            ),
            (b"plain".to_vec(), labels.clone(), "images: not a complete gzip file"),
            (
                labels.clone(),
                labels.clone(),
                "images: expected the IDX magic number 0x00000803, found 0x00000801",
            ),
            (
                file(IMAGES_MAGIC, &[0, 2, 2], &[]),
                labels.clone(),
                "images: the file holds no image",
            ),
            (
                file(IMAGES_MAGIC, &[1, 3, 2], &[0; 6]),
                labels.clone(),
                "images: expected items of [2, 2], found [3, 2]",
            ),
            (
                file(IMAGES_MAGIC, &[9, 2, 2], &[0; 4]),
                labels.clone(),
                "images: expected 36 bytes after the header, found 4",
            ),
            (
                file(IMAGES_MAGIC, &[u32::MAX, 2, 2], &[0; 4]),
                labels.clone(),
                "images: expected at most 1000000 items, found 4294967295",
            ),
            (
                images.clone(),
                file(LABELS_MAGIC, &[2], &[0, 0]),
                "labels: expected 1, one an image, found 2",
            ),
            (
                images.clone(),
                file(LABELS_MAGIC, &[1], &[10]),
                "labels: expected classes below 10, found 10 for image 0",
            ),
        ];
        for (images, labels, message) in cases {
            let error = Dataset::load(&images, &labels, 2, 10, names()).expect_err(message);
            let file = if message.starts_with("images") { "a.gz" } else { "b.gz" };
            assert!(format!("{error:#}").starts_with(&format!("{file}: {message}")), "{error:#}");
        }
    }
}
