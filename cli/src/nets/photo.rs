//! Photos: read, resized as Pillow does it, cut as torchvision does it.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::ValueEnum;
use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::U16x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageReader, Rgb, RgbImage, imageops};

/// How photos are resized; both filters look at every pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Filter {
    Bilinear,
    Bicubic,
}

/// The longer side of a photo, once resized.
const LONGEST: u32 = 1 << 14;

/// Reads a photo, turned as its EXIF data say.
pub(super) fn read(path: &Path) -> Result<RgbImage> {
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    ensure!(
        !is_cut_jpeg(&bytes),
        "{name}: a JPEG without its end; what there is was not classified"
    );
    // Its sources say the same again.
    decode(&bytes).map_err(|error| anyhow!("{name}: cannot be read as PNG or JPEG: {error}"))
}

/// Pixels of a photo, as many as Pillow reads: a small file may ask for any memory.
const MOST_PIXELS: u64 = 178_956_970;

fn decode(bytes: &[u8]) -> Result<RgbImage> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    ensure!(
        u64::from(width) * u64::from(height) <= MOST_PIXELS,
        "expected at most {MOST_PIXELS} pixels, found {width} x {height}"
    );
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether a JPEG ends before its end, which the decoder would fill with grey.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    const START: [u8; 2] = [0xff, 0xd8];
    const SCAN: u8 = 0xda;
    const END: [u8; 2] = [0xff, 0xd9];
    let Some(mut rest) = bytes.strip_prefix(&START) else { return false };
    // Segments say their lengths; what is in them, such as a smaller picture, may have ends too.
    while let [0xff, marker, high, low, ..] = *rest {
        if marker == SCAN {
            return !rest.windows(2).any(|pair| pair == END);
        }
        // A marker may have more than one 0xff before it.
        let len = if marker == 0xff { 1 } else { 2 + usize::from(u16::from_be_bytes([high, low])) };
        let Some(after) = rest.get(len..) else { return true };
        rest = after;
    }
    false
}

/// The square in the middle of a photo whose shorter side was resized.
pub(super) fn middle(image: &RgbImage, resize: u32, side: u32, filter: Filter) -> Result<RgbImage> {
    let [width, height] = sizes(image.dimensions().into(), resize)?;
    let resized = resized(image, width, height, filter)?;
    let [left, top] = corner([width, height], side);
    Ok(imageops::crop_imm(&resized, left, top, side, side).to_image())
}

/// Width and height of a photo whose shorter side is resized: down to whole pixels, as torchvision
/// has it.
fn sizes(found: [u32; 2], resize: u32) -> Result<[u32; 2]> {
    let [width, height] = found;
    ensure!(width > 0 && height > 0, "a photo without pixels");
    let shorter = u64::from(width.min(height));
    let scaled = |side: u32| u64::from(side) * u64::from(resize) / shorter;
    let longer = scaled(width.max(height));
    ensure!(
        longer <= LONGEST.into(),
        "a photo of {width} x {height} would be {longer} long at a shorter side of {resize}, and \
         at most {LONGEST} is resized to"
    );
    Ok([u32::try_from(scaled(width))?, u32::try_from(scaled(height))?])
}

/// Left and top of the square in the middle, halves to the even number, as torchvision has it.
fn corner(found: [u32; 2], side: u32) -> [u32; 2] {
    found.map(|whole| {
        let rest = whole - side;
        (rest + rest / 2 % 2) / 2
    })
}

/// Resizes along the rows, then along the columns, and rounds in between, as Pillow does. In 16
/// bits, since the crate's coefficients of 8-bit images have fewer digits than Pillow's.
fn resized(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage> {
    let wide = image.pixels().map(|Rgb(pixel)| U16x3::new(pixel.map(u16::from))).collect();
    let wide = TypedImage::from_pixels(image.width(), image.height(), wide)?;
    let rows = pass(&wide, width, image.height(), filter)?;
    let all = pass(&rows, width, height, filter)?;
    let bytes: Result<Vec<u8>, _> =
        all.pixels().iter().flat_map(|pixel| pixel.0).map(u8::try_from).collect();
    RgbImage::from_raw(width, height, bytes?).context("resized to another size than asked for")
}

fn pass(
    image: &TypedImage<'_, U16x3>,
    width: u32,
    height: u32,
    filter: Filter,
) -> Result<TypedImage<'static, U16x3>> {
    let filter = match filter {
        Filter::Bilinear => FilterType::Bilinear,
        // Pillow's bicubic has the same coefficient, -1/2.
        Filter::Bicubic => FilterType::CatmullRom,
    };
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    let mut made = TypedImage::new(width, height);
    Resizer::new().resize_typed(image, &mut made, &options)?;
    // A bicubic filter goes past what 8 bits hold.
    for pixel in made.pixels_mut() {
        pixel.0 = pixel.0.map(|value| value.min(u8::MAX.into()));
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn pillow() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pillow")
    }

    /// Pillow rounds coefficients to 22 binary digits, the crate to more. Sums of ten differ by at
    /// most 10 x 255 / 2^23 counts, which is 3e-4: in two passes one byte in 800 is so near to a
    /// tie, on either side. Flat colours have more ties.
    #[test]
    fn photos_are_resized_as_pillow_does() {
        let (mut files, mut all, mut off) = (0, 0, 0);
        for file in fs::read_dir(pillow()).expect("is there") {
            let path = file.expect("readable").path();
            let name = path.file_stem().expect("has a name").to_string_lossy().into_owned();
            let [from, _, filter] = name.split('_').collect::<Vec<_>>()[..] else { continue };
            files += 1;
            let expected = read(&path).expect("readable");
            let image = read(&path.with_file_name(format!("{from}.png"))).expect("readable");
            let filter = Filter::from_str(filter, false).expect("is a filter");
            let (width, height) = expected.dimensions();
            let found = resized(&image, width, height, filter).expect("resizes");
            for (found, expected) in found.iter().zip(expected.iter()) {
                assert!(found.abs_diff(*expected) <= 1, "{name}: {found}, {expected}");
                off += usize::from(found != expected);
                all += 1;
            }
        }
        println!("{off} of {all} bytes are off by one");
        assert!(files == 30 && all > 80_000, "{files} files, {all} bytes");
        assert!(off * 500 <= all, "{off} of {all} bytes are off by one");
    }

    #[test]
    fn photos_are_cut_as_torchvision_does() {
        let text = fs::read_to_string(pillow().join("crops.txt")).expect("is there");
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for line in &lines {
            let numbers = line.split([' ', 'x', ':']).filter_map(|word| word.parse().ok());
            let numbers: Vec<u32> = numbers.collect();
            let &[width, height, resize, size, new_width, new_height, left, top] = &numbers[..]
            else {
                panic!("{line}");
            };
            let found = sizes([width, height], resize);
            if new_width.max(new_height) > LONGEST {
                assert!(found.is_err(), "{line}");
                continue;
            }
            let found = found.expect("fits");
            assert_eq!(
                (found, corner(found, size)),
                ([new_width, new_height], [left, top]),
                "{line}"
            );
        }
        assert_eq!(lines.len(), 60);
    }

    /// A JPEG with a smaller picture in a segment, cut anywhere; a file that is none.
    #[test]
    fn a_jpeg_that_was_cut_is_known() {
        let mut jpeg = Vec::new();
        let pixels: Vec<u8> = (0..=255).cycle().take(32 * 24 * 3).collect();
        let image = RgbImage::from_raw(32, 24, pixels).expect("fits");
        let format = image::ImageFormat::Jpeg;
        image.write_to(&mut Cursor::new(&mut jpeg), format).expect("is written");
        let segment = [&[0xff, 0xe1, 0, 8], &jpeg[..2], &[0, 0], &jpeg[jpeg.len() - 2..]].concat();
        jpeg.splice(2..2, segment);
        assert!(!is_cut_jpeg(&jpeg));
        assert_eq!(decode(&jpeg).expect("is a JPEG").dimensions(), (32, 24));
        let scan = jpeg.windows(2).position(|pair| pair == [0xff, 0xda]).expect("has a scan");
        for len in [4, 20, scan - 1, scan + 8, jpeg.len() - 1] {
            let cut = &jpeg[..len];
            assert!(is_cut_jpeg(cut) || decode(cut).is_err(), "{len} bytes");
        }
        assert!(!is_cut_jpeg(b"") && !is_cut_jpeg(b"no picture"));
    }

    /// The EXIF data of a camera that was held upright: a quarter turn.
    #[test]
    fn photos_are_turned_as_they_say() {
        let mut jpeg = Vec::new();
        let half = |x, _| if x < 16 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) };
        let image = RgbImage::from_fn(32, 16, half);
        let format = image::ImageFormat::Jpeg;
        image.write_to(&mut Cursor::new(&mut jpeg), format).expect("is written");
        let tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let exif = [&[0xff, 0xe1, 0, 34], &b"Exif\0\0"[..], &tiff[..]].concat();
        jpeg.splice(2..2, exif);
        let turned = decode(&jpeg).expect("is a JPEG");
        assert_eq!(turned.dimensions(), (16, 32));
        assert!(turned[(8, 4)][0] > 200 && turned[(8, 28)][2] > 200, "the left is above");
    }

    #[test]
    fn a_small_file_asks_for_little_memory() {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, 60_000, 60_000);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().expect("is written");
        writer.write_chunk(png::chunk::IDAT, &[0; 8]).expect("is written");
        drop(writer);
        let error = decode(&png).expect_err("is too large").to_string();
        assert_eq!(error, "expected at most 178956970 pixels, found 60000 x 60000");
    }
}
