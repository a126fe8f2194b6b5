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

impl Dataset {
    /// Images of `side` x `side` pixels and labels below `classes`, from two gzip files.
    pub(crate) fn load(images: &[u8], labels: &[u8], side: usize, classes: usize) -> Result<Self> {
        let (sizes, pixels) = idx::<3>(images, IMAGES_MAGIC).context("images")?;
        let ([count], labels) = idx::<1>(labels, LABELS_MAGIC).context("labels")?;
        ensure!(
            sizes[1..] == [side, side],
            "images: expected {side} x {side} pixels, found {} x {}",
            sizes[1],
            sizes[2]
        );
        ensure!(sizes[0] > 0, "images: the file holds no image");
        ensure!(sizes[0] == count, "labels: expected {}, one an image, found {count}", sizes[0]);
        if let Some(i) = labels.iter().position(|&label| usize::from(label) >= classes) {
            bail!("labels: expected classes below {classes}, found {} for image {i}", labels[i]);
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

/// Axis sizes and bytes of a gzipped IDX file.
fn idx<const AXES: usize>(file: &[u8], magic: u32) -> Result<([usize; AXES], Vec<u8>)> {
    let mut reader = GzDecoder::new(file);
    let mut word = || -> Result<u32> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).context("not a complete gzip file")?;
        Ok(u32::from_be_bytes(bytes))
    };
    let found = word()?;
    ensure!(found == magic, "expected the IDX magic number {magic:#010x}, found {found:#010x}");
    let mut sizes = [0; AXES];
    for size in &mut sizes {
        *size = word()? as usize;
    }
    let expected = sizes.iter().map(|&size| size as u64).product::<u64>();
    // One byte more than expected, so that a longer file shows; memory grows with what is really there.
    let mut bytes = Vec::new();
    reader.take(expected.saturating_add(1)).read_to_end(&mut bytes).context("not a complete gzip file")?;
    ensure!(bytes.len() as u64 == expected, "expected {expected} bytes after the header, found {}", bytes.len());
    Ok((sizes, bytes))
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
        let header: Vec<u8> = [magic].iter().chain(sizes).flat_map(|word| word.to_be_bytes()).collect();
        gzip(&[&header, data].concat())
    }

    #[test]
    fn a_small_file_is_read() {
        let images = file(IMAGES_MAGIC, &[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]);
        let labels = file(LABELS_MAGIC, &[2], &[0, 9]);
        let data = Dataset::load(&images, &labels, 2, 10).expect("valid");
        assert_eq!((data.len(), data.image(1)), (2, &[5, 6, 7, 8][..]));
    }

    #[test]
    fn each_fault_is_named() {
        let images = file(IMAGES_MAGIC, &[1, 2, 2], &[1, 2, 3, 4]);
        let labels = file(LABELS_MAGIC, &[1], &[0]);
        let cases = [
            (images[..images.len() / 2].to_vec(), labels.clone(), "images: not a complete gzip file"),
            (b"plain".to_vec(), labels.clone(), "images: not a complete gzip file"),
            (labels.clone(), labels.clone(), "images: expected the IDX magic number 0x00000803, found 0x00000801"),
            (file(IMAGES_MAGIC, &[0, 2, 2], &[]), labels.clone(), "images: the file holds no image"),
            (file(IMAGES_MAGIC, &[1, 3, 2], &[0; 6]), labels.clone(), "images: expected 2 x 2 pixels, found 3 x 2"),
            (
                file(IMAGES_MAGIC, &[9, 2, 2], &[0; 4]),
                labels.clone(),
                "images: expected 36 bytes after the header, found 4",
            ),
            (images.clone(), file(LABELS_MAGIC, &[2], &[0, 0]), "labels: expected 1, one an image, found 2"),
            (
                images.clone(),
                file(LABELS_MAGIC, &[1], &[10]),
                "labels: expected classes below 10, found 10 for image 0",
            ),
        ];
        for (images, labels, message) in cases {
            let error = Dataset::load(&images, &labels, 2, 10).expect_err(message);
            assert!(format!("{error:#}").starts_with(message), "{error:#}");
        }
    }
}
