//! The demo's report: one self-contained HTML page, without scripts and without network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Width and height of a sample image in pixels.
const SIDE: u32 = 28;
/// Opacity of the strongest shade; text stays readable on it in both colour schemes.
const STRONGEST: f64 = 0.65;
/// Smallest deviation from uniform attention that gets the strongest shade: without it, the
/// rounding noise of a network with uniform attention would look like a pattern.
const LEAST_RANGE: f64 = 0.05;
/// L1 distance under which two mixtures of kernels are called nearly the same.
const NEARLY_SAME: f64 = 0.02;
/// What counts as a difference.
const AMBIGUITY_NOTE: &str = "\
    <p class=\"note\">Ambiguous: the two best reference logits lie within 0.001 of each other. \
    Such an image is not counted among the answers that differ.</p>\n";
/// Stands where a figure is absent.
pub(crate) const DASH: &str = "–";
/// The ten digits, raised.
const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
/// Style sheet of the page.
pub(crate) const STYLE: &str = include_str!("report.css");

/// Everything the report shows.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// Name of the adapter, or of what ran in its place.
    pub adapter: &'a str,
    /// Driver of the adapter; may be empty.
    pub driver: &'a str,
    /// Number of images classified.
    pub total: usize,
    /// Images that ran together; 0 where they ran one by one, on the CPU.
    pub batch: usize,
    /// Images classified correctly here.
    pub correct: usize,
    /// Images the float64 reference classifies correctly.
    pub reference_correct: usize,
    /// Images whose class differs from the reference's, ambiguous ones aside.
    pub class_mismatches: usize,
    /// Images whose two best reference logits lie within 1e-3 of each other.
    pub ambiguous: usize,
    /// Largest difference of a logit from the reference.
    pub max_logit_error: f64,
    /// Largest difference of a logit from the CPU implementation, where that was run.
    pub max_cpu_error: Option<f64>,
    /// Number of images the CPU implementation was run on.
    pub cpu_sample: usize,
    /// Throughput.
    pub images_per_second: f64,
    /// Names of the classes.
    pub classes: &'a [&'a str],
    /// One row a layer, in the order of the network.
    pub layers: &'a [LayerRow],
    /// Some images, right and wrong.
    pub samples: &'a [Sample<'a>],
    /// Number of images by true class (row) and predicted class (column).
    pub confusion: &'a [Vec<usize>],
    /// Kernel attention of the dynamic layers.
    pub attention: &'a [LayerAttention],
}

/// One layer of the network.
#[derive(Debug)]
pub(crate) struct LayerRow {
    /// Name of the layer.
    pub name: String,
    /// Its shape, in words.
    pub shape: String,
    /// The kernel that computes it.
    pub kernel: String,
    /// Milliseconds a batch, where the adapter has timestamps.
    pub gpu_ms: Option<f64>,
    /// Throughput in GFLOP/s, where the adapter has timestamps.
    pub gflops: Option<f64>,
}

/// One image and what became of it.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    /// Its place in the test set.
    pub index: usize,
    /// 28 by 28 grey values, row by row.
    pub pixels: &'a [u8],
    /// Its true class.
    pub truth: usize,
    /// The class the network gives it.
    pub predicted: usize,
    /// The probability the network gives that class.
    pub confidence: f32,
}

impl Sample<'_> {
    /// Whether the network got it right.
    fn is_right(&self) -> bool {
        self.truth == self.predicted
    }
}

/// Mean kernel attention of one dynamic layer.
#[derive(Debug)]
pub(crate) struct LayerAttention {
    /// Name of the layer.
    pub layer: String,
    /// The mean over a class's images, by class and kernel; each row sums to 1.
    pub mean: Vec<Vec<f64>>,
}

impl LayerAttention {
    /// Number of kernels.
    fn kernels(&self) -> usize {
        self.mean.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// What each kernel gets when none is preferred.
    fn uniform(&self) -> f64 {
        1.0 / self.kernels().max(1) as f64
    }

    /// The classes that have images, with their rows. A class without images has no mean: its row
    /// is empty, zero or not a number.
    fn rows(&self) -> impl Iterator<Item = (usize, &[f64])> {
        let rows = self.mean.iter().map(Vec::as_slice).enumerate();
        rows.filter(|(_, row)| row.iter().sum::<f64>() > 0.0)
    }

    /// Largest deviation of a cell from uniform attention.
    fn deviation(&self) -> f64 {
        let cells = self.rows().flat_map(|(_, row)| row);
        cells.fold(0.0, |most, value| (value - self.uniform()).abs().max(most))
    }

    /// The two classes whose rows differ most, with their L1 distance.
    fn farthest(&self) -> Option<(usize, usize, f64)> {
        let rows: Vec<_> = self.rows().collect();
        let pairs = rows.iter().enumerate().flat_map(|(i, a)| {
            let later = rows[i + 1..].iter();
            later.map(move |b| (a.0, b.0, l1_distance(a.1, b.1)))
        });
        pairs.max_by(|a, b| a.2.total_cmp(&b.2))
    }

    /// Attention of each kernel, averaged over the classes that have images.
    fn shares(&self) -> Vec<f64> {
        let count = self.rows().count().max(1) as f64;
        let share = |kernel| {
            let column = self.rows().filter_map(|(_, row)| row.get(kernel));
            column.sum::<f64>() / count
        };
        (0..self.kernels()).map(share).collect()
    }
}

impl Report<'_> {
    /// The page.
    ///
    /// # Errors
    ///
    /// If the pixels of a sample are not 28 by 28.
    pub(crate) fn to_html(&self) -> Result<String, png::EncodingError> {
        let sections = [
            self.header(),
            self.layer_section(),
            self.gallery_section()?,
            self.confusion_section(),
            self.attention_section(),
            self.footer(),
        ];
        Ok(page("dynconv demo: Fashion-MNIST", STYLE, &sections.concat()))
    }

    /// Headline, summary and key figures.
    fn header(&self) -> String {
        format!(
            "<header>\n<p class=\"kicker\">dynconv demo · Fashion-MNIST · ODConv network</p>\n\
             <h1>{} of {} test images classified correctly</h1>\n\
             <p class=\"lede\">{}</p>\n{}{AMBIGUITY_NOTE}</header>\n",
            percent(self.correct, self.total),
            count(self.total),
            self.summary(),
            self.figures(),
        )
    }

    /// The result in one sentence.
    fn summary(&self) -> String {
        let agreement = match self.class_mismatches {
            0 => "no image is classified differently".to_owned(),
            1 => "1 image is classified differently".to_owned(),
            many => format!("{} images are classified differently", count(many)),
        };
        let aside = match self.ambiguous {
            0 => String::new(),
            some => format!(" ({} ambiguous aside)", count(some)),
        };
        let score = |correct| format!("{} ({})", count(correct), percent(correct, self.total));
        format!(
            "On {}, dynconv classifies {} of {} images correctly, the float64 PyTorch reference \
             {}: {agreement}{aside}, and the largest difference of a logit is {}.",
            escape(self.adapter),
            score(self.correct),
            count(self.total),
            score(self.reference_correct),
            scientific(self.max_logit_error),
        )
    }

    /// The key figures.
    fn figures(&self) -> String {
        let images = format!("of {} images", count(self.total));
        let cpu_note = match self.max_cpu_error {
            Some(_) => format!("largest on {} images", count(self.cpu_sample)),
            None => "not compared in this run".to_owned(),
        };
        let together = match self.batch {
            0 => "one by one, by the host's clock".to_owned(),
            batch => format!("in batches of {}, by the host's clock", count(batch)),
        };
        let figures = [
            ("Accuracy", percent(self.correct, self.total), "this run"),
            ("Reference accuracy", percent(self.reference_correct, self.total), "PyTorch, float64"),
            ("Answers that differ", count(self.class_mismatches), &images),
            ("Ambiguous", count(self.ambiguous), &images),
            ("Largest logit difference", scientific(self.max_logit_error), "from the reference"),
            ("Logit difference from CPU", or_dash(self.max_cpu_error, scientific), &cpu_note),
            ("Images per second", decimal(self.images_per_second, 0), &together),
            ("Ran on", escape(self.adapter), &escape(self.driver)),
        ];
        let cell = |(term, value, note)| {
            format!("<div><dt>{term}</dt><dd>{value}</dd><dd class=\"small\">{note}</dd></div>\n")
        };
        format!("<dl class=\"figures\">\n{}</dl>\n", figures.map(cell).concat())
    }

    /// Table of the layers.
    fn layer_section(&self) -> String {
        if self.layers.is_empty() {
            return section("Layers", "<p>No layers were recorded.</p>\n");
        }
        let total: f64 = self.layers.iter().filter_map(|layer| layer.gpu_ms).sum();
        let rows: String = self.layers.iter().map(|layer| layer.to_html(total)).collect();
        section(
            "Layers",
            &format!(
                "{}<div class=\"scroll\" tabindex=\"0\">\n<table class=\"layers\">\n\
                 <thead><tr><th>Layer</th><th>Shape</th><th>Kernel</th>\
                 <th class=\"number\">ms a batch</th><th class=\"number\">GFLOP/s</th>\
                 <th class=\"share\">Share of the time</th></tr></thead>\n\
                 <tbody>\n{rows}</tbody>\n</table>\n</div>\n",
                self.timing_note(total)
            ),
        )
    }

    /// What the times are, or why some are absent.
    fn timing_note(&self, total: f64) -> String {
        let timed = self.layers.iter().filter(|layer| layer.gpu_ms.is_some()).count();
        let sum = decimal(total, 3);
        let text = match timed {
            0 => format!("{DASH} means not measured: no timestamps on this adapter."),
            all if all == self.layers.len() => {
                format!("Measured with GPU timestamps: {sum} ms a batch in all.")
            }
            some => format!(
                "Measured with GPU timestamps: {sum} ms a batch in the {some} layers that have \
                 them; {DASH} means no timestamps for that layer."
            ),
        };
        format!("<p class=\"note\">{text} {}</p>\n", self.batch_note())
    }

    /// Why the images a second are fewer than the layers' times promise.
    fn batch_note(&self) -> String {
        format!(
            "A batch is {} images and takes {} ms of the host's clock, from which the images a \
             second follow: beside the layers that is copying the images to the device, recording, \
             submitting, waiting, and copying the logits back. The layers' times are medians over \
             the full batches.",
            count(self.batch),
            decimal(1e3 * self.batch as f64 / self.images_per_second, 2),
        )
    }

    /// The sample images, wrong ones first.
    fn gallery_section(&self) -> Result<String, png::EncodingError> {
        let (right, wrong): (Vec<_>, Vec<_>) = self.samples.iter().partition(|s| s.is_right());
        let body = if self.samples.is_empty() {
            "<p>No sample images were recorded.</p>\n".to_owned()
        } else {
            "<p>What the network sees, enlarged four times; under it the true class, the network's \
             answer (✓ right, ✗ wrong) with its probability, and the image's place in the test \
             set. These are examples: how many are shown of each kind says nothing about the \
             accuracy.</p>\n"
                .to_owned()
                + &self.gallery("Wrong", &wrong)?
                + &self.gallery("Right", &right)?
        };
        Ok(section("Sample images", &body))
    }

    /// One group of sample images; nothing if there are none.
    fn gallery(&self, title: &str, samples: &[&Sample]) -> Result<String, png::EncodingError> {
        if samples.is_empty() {
            return Ok(String::new());
        }
        let figures = samples.iter().map(|sample| self.sample(sample));
        let figures = figures.collect::<Result<String, _>>()?;
        Ok(format!("<h3>{title}</h3>\n<div class=\"gallery\">\n{figures}</div>\n"))
    }

    /// One sample image with its caption.
    fn sample(&self, sample: &Sample) -> Result<String, png::EncodingError> {
        let uri = data_uri(sample.pixels)?;
        let (truth, predicted) = (self.class(sample.truth), self.class(sample.predicted));
        let sure = decimal(f64::from(sample.confidence) * 100.0, 1);
        let index = sample.index;
        let (mark, verdict) = if sample.is_right() {
            ("right", format!("✓ {predicted}"))
        } else {
            ("wrong", format!("<strong>✗ {predicted}</strong>"))
        };
        Ok(format!(
            "<figure class=\"{mark}\"><img src=\"{uri}\" width=\"112\" height=\"112\" \
             alt=\"Test image {index}: {truth}\">\
             <figcaption><b>{truth}</b><br>{verdict}<br>{sure}% · #{index}</figcaption></figure>\n"
        ))
    }

    /// Confusion matrix.
    fn confusion_section(&self) -> String {
        if self.confusion.is_empty() {
            return section("Confusion matrix", "<p>No predictions were recorded.</p>\n");
        }
        let most = self.mistakes().first().map_or(0, |mistake| mistake.2);
        let rows: String = (0..self.confusion.len()).map(|i| self.confusion_row(i, most)).collect();
        section(
            "Confusion matrix",
            &format!(
                "<div class=\"beside\">\n<div>\n<p>Each row holds the images of one true class, \
                 each column those given one class. The diagonal counts the right answers; \
                 everything beside it is a mistake.</p>\n{}{}\
                 <p class=\"note\">Recall: the part of a class's images that is given that \
                 class.</p>\n\
                 </div>\n<div class=\"scroll\" tabindex=\"0\">\n<table class=\"grid confusion\">\n\
                 <thead><tr><th class=\"corner\">true ↓ predicted →</th>{}\
                 <th class=\"upright\"><span>Recall</span></th></tr></thead>\n\
                 <tbody>\n{rows}</tbody>\n</table>\n</div>\n</div>\n",
                self.frequent_mistakes(),
                confusion_legend(most),
                self.column_heads(),
            ),
        )
    }

    /// All kinds of mistake as true class, predicted class and number, most frequent first.
    fn mistakes(&self) -> Vec<(usize, usize, usize)> {
        let cells = self.confusion.iter().enumerate().flat_map(|(truth, row)| {
            let row = row.iter().copied().enumerate();
            row.map(move |(predicted, images)| (truth, predicted, images))
        });
        let mut mistakes: Vec<_> = cells.filter(|(t, p, images)| t != p && *images > 0).collect();
        mistakes.sort_by_key(|mistake| std::cmp::Reverse(mistake.2));
        mistakes
    }

    /// The most frequent mistakes, in words.
    fn frequent_mistakes(&self) -> String {
        let describe = |&(truth, predicted, images): &(usize, usize, usize)| {
            let (truth, predicted) = (self.class(truth), self.class(predicted));
            format!("<li>{truth} taken for {predicted}: {}</li>", count(images))
        };
        let most: String = self.mistakes().iter().take(5).map(describe).collect();
        if most.is_empty() {
            return "<p>There is no mistake.</p>\n".to_owned();
        }
        format!("<p>The most frequent mistakes:</p>\n<ol>{most}</ol>\n")
    }

    /// Column heads of the confusion matrix, upright to keep the cells narrow.
    fn column_heads(&self) -> String {
        let head = |i| {
            let class = self.class(i);
            format!("<th class=\"upright\" scope=\"col\"><span>{class}</span></th>")
        };
        (0..self.confusion.len()).map(head).collect()
    }

    /// One row of the confusion matrix, with mistakes shaded against the most frequent one.
    fn confusion_row(&self, truth: usize, most: usize) -> String {
        let row = &self.confusion[truth];
        let cells: String = row
            .iter()
            .enumerate()
            .map(|(predicted, &images)| confusion_cell(truth == predicted, images, most))
            .collect();
        let right = row.get(truth).copied().unwrap_or(0);
        format!(
            "<tr><th scope=\"row\">{}</th>{cells}<td class=\"recall\">{}</td></tr>\n",
            self.class(truth),
            percent_with(right, row.iter().sum(), 1),
        )
    }

    /// Kernel attention of every dynamic layer.
    fn attention_section(&self) -> String {
        if self.attention.is_empty() {
            return section("Kernel attention", "<p>No kernel attention was recorded.</p>\n");
        }
        // One scale for all layers, so that their maps can be compared.
        let range =
            self.attention.iter().map(LayerAttention::deviation).fold(LEAST_RANGE, f64::max);
        let maps: String =
            self.attention.iter().map(|layer| self.attention_map(layer, range)).collect();
        section(
            "Kernel attention",
            &format!(
                "<p>A dynamic layer holds K kernels and mixes them anew for every image. Each cell \
                 is the mean weight that a kernel gets from the images of one class; each row adds \
                 up to 1. A row of 1/K throughout would mean no preference. Where rows differ, the \
                 layer convolves those classes with different weights: the L1 distance of two rows \
                 runs from 0 (the same mixture) to 2 (no kernel in common). The other attentions \
                 of ODConv (positions, input channels, output channels) are not shown.</p>\n\
                 {}<div class=\"maps\">\n{maps}</div>\n",
                attention_legend(range)
            ),
        )
    }

    /// Heat map of one layer with what can be seen in it.
    fn attention_map(&self, layer: &LayerAttention, range: f64) -> String {
        let heads: String = (1..=layer.kernels())
            .map(|kernel| format!("<th scope=\"col\">{kernel}</th>"))
            .collect();
        let rows: String =
            (0..layer.mean.len()).map(|class| self.attention_row(layer, class, range)).collect();
        format!(
            "<article>\n<h3>{}</h3>\n<div class=\"scroll\" tabindex=\"0\">\n\
             <table class=\"grid\">\n\
             <thead><tr><th class=\"corner\">class ↓ kernel →</th>{heads}</tr></thead>\n\
             <tbody>\n{rows}</tbody>\n</table>\n</div>\n<p>{} {}</p>\n</article>\n",
            escape(&layer.layer),
            self.contrast_sentence(layer),
            dominance_sentence(layer),
        )
    }

    /// One row of a heat map.
    fn attention_row(&self, layer: &LayerAttention, class: usize, range: f64) -> String {
        let row = layer.rows().find(|(i, _)| *i == class).map_or(&[][..], |(_, row)| row);
        let cells: String = (0..layer.kernels())
            .map(|kernel| match row.get(kernel) {
                Some(&weight) => attention_cell(weight, (weight - layer.uniform()) / range),
                None => format!("<td>{DASH}</td>"),
            })
            .collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", self.class(class))
    }

    /// How much the classes differ in a layer.
    fn contrast_sentence(&self, layer: &LayerAttention) -> String {
        let Some((a, b, distance)) = layer.farthest() else {
            return "There are no two classes to compare.".to_owned();
        };
        let (a, b, distance_text) = (self.class(a), self.class(b), decimal(distance, 2));
        if distance < NEARLY_SAME {
            return format!(
                "All classes get nearly the same mixture: even {a} and {b}, which differ most, \
                 are only {distance_text} apart (L1 distance)."
            );
        }
        format!("{a} and {b} differ most (L1 distance {distance_text}).")
    }

    /// Where the page comes from.
    fn footer(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "<footer>Written by dynconv {version}. Images: Fashion-MNIST, Zalando Research, \
             MIT license.</footer>\n"
        )
    }

    /// Name of a class, escaped; its number if it has no name.
    fn class(&self, index: usize) -> String {
        let name = self.classes.get(index).map(|name| escape(name));
        name.unwrap_or_else(|| format!("class {index}"))
    }
}

impl LayerRow {
    /// The layer's row, with its share of `total` milliseconds.
    fn to_html(&self, total: f64) -> String {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>\
             <td class=\"number\" data-label=\"ms a batch\">{}</td>\
             <td class=\"number\" data-label=\"GFLOP/s\">{}</td>\
             <td class=\"share\" data-label=\"Share\">{}</td></tr>\n",
            escape(&self.name),
            escape(&self.shape),
            escape(&self.kernel),
            or_dash(self.gpu_ms, |ms| decimal(ms, 3)),
            or_dash(self.gflops, |gflops| decimal(gflops, 1)),
            or_dash(self.gpu_ms.filter(|_| total > 0.0), |ms| share_bar(ms / total * 100.0)),
        )
    }
}

/// A bar as long as its percentage, which stands beside it.
fn share_bar(percentage: f64) -> String {
    let text = decimal(percentage, 1);
    format!(
        "<span class=\"track\"><i style=\"width:{percentage:.2}%\"></i></span>\
         <span class=\"part\">{text}%</span>"
    )
}

/// One cell of the confusion matrix.
fn confusion_cell(is_right: bool, images: usize, most: usize) -> String {
    let text = count(images);
    if is_right {
        return format!("<td class=\"cool hit\" style=\"--a:.25\">{text}</td>");
    }
    if images == 0 {
        return format!("<td class=\"zero\">{text}</td>");
    }
    format!("<td class=\"warm\" style=\"--a:{:.2}\">{text}</td>", mistake_shade(images, most))
}

/// Opacity of a kind of mistake. The square root keeps rare ones visible.
fn mistake_shade(images: usize, most: usize) -> f64 {
    STRONGEST * (images as f64 / most.max(1) as f64).sqrt()
}

/// Legend of the confusion matrix; none without mistakes.
fn confusion_legend(most: usize) -> String {
    if most == 0 {
        return String::new();
    }
    let mut steps = vec![1, most / 8, most / 2, most];
    steps.retain(|&images| (1..=most).contains(&images));
    steps.dedup();
    let swatch = |images| {
        let shade = mistake_shade(images, most);
        format!("<span><i class=\"warm\" style=\"--a:{shade:.2}\"></i>{}</span>", count(images))
    };
    let swatches: String = steps.into_iter().map(swatch).collect();
    format!(
        "<div class=\"legend\"><span><i class=\"cool hit\" style=\"--a:.25\"></i>right</span>\
         <span>mistakes:</span>{swatches}</div>\n"
    )
}

/// One cell of a heat map; `deviation` from uniform is in units of the scale's range.
fn attention_cell(weight: f64, deviation: f64) -> String {
    format!("<td {}>{}</td>", deviation_shade(deviation), decimal(weight, 2))
}

/// Attributes that shade a deviation from uniform: one colour above, the other below.
fn deviation_shade(deviation: f64) -> String {
    let colour = if deviation < 0.0 { "warm" } else { "cool" };
    format!("class=\"{colour}\" style=\"--a:{:.2}\"", STRONGEST * deviation.abs())
}

/// Legend of the heat maps.
fn attention_legend(range: f64) -> String {
    let swatch = |deviation: f64| {
        let text = match deviation {
            0.0 => "1/K".to_owned(),
            below if below < 0.0 => format!("−{}", decimal(-deviation * range, 2)),
            _ => format!("+{}", decimal(deviation * range, 2)),
        };
        format!("<span><i {}></i>{text}</span>", deviation_shade(deviation))
    };
    let swatches = [-1.0, -0.5, 0.0, 0.5, 1.0].map(swatch).concat();
    format!("<div class=\"legend\"><span>distance from uniform:</span>{swatches}</div>\n")
}

/// Whether one kernel of a layer dominates. It does when its mean share lies more than halfway
/// from uniform to everything, a bound that means the same for every number of kernels.
fn dominance_sentence(layer: &LayerAttention) -> String {
    let shares = layer.shares();
    let largest = shares.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    let Some((kernel, &share)) = largest else {
        return String::new();
    };
    let (kernel, share_text) = (kernel + 1, decimal(share, 2));
    let verdict = if share > (1.0 + layer.uniform()) / 2.0 {
        format!("Kernel {kernel} dominates: its mean share is {share_text}")
    } else {
        format!(
            "No kernel dominates: the largest mean share is {share_text}, that of kernel {kernel}"
        )
    };
    format!("{verdict} (uniform: {}).", decimal(layer.uniform(), 2))
}

/// Sum of the absolute differences.
fn l1_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
}

/// A page by itself. The policy holds it to its word: nothing is loaded, nothing is run.
pub(crate) fn page(title: &str, style: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
         <style>\n{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// A section with a heading.
pub(crate) fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{body}</section>\n")
}

/// A grey image as a PNG in a data URI. Enlarging it is the style sheet's work.
fn data_uri(pixels: &[u8]) -> Result<String, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIDE, SIDE);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(&bytes)))
}

/// Text with the characters replaced that mean something in HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

/// A value in words, or a dash if it is absent.
pub(crate) fn or_dash<T>(value: Option<T>, to_text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| DASH.to_owned(), to_text)
}

/// A number with commas between its thousands.
pub(crate) fn count(number: usize) -> String {
    group(&number.to_string())
}

/// A number with a fixed number of decimals and commas between its thousands; a dash if it is not
/// finite.
pub(crate) fn decimal(number: f64, decimals: usize) -> String {
    if !number.is_finite() {
        return DASH.to_owned();
    }
    let text = format!("{number:.decimals$}");
    match text.split_once('.') {
        Some((whole, fraction)) => format!("{}.{fraction}", group(whole)),
        None => group(&text),
    }
}

/// Commas between the thousands of a string of digits.
fn group(digits: &str) -> String {
    let places = digits.len();
    let with_comma = |(i, digit): (usize, char)| {
        let comma = if i > 0 && (places - i).is_multiple_of(3) { "," } else { "" };
        format!("{comma}{digit}")
    };
    digits.chars().enumerate().map(with_comma).collect()
}

/// A share in percent.
fn percent(part: usize, whole: usize) -> String {
    percent_with(part, whole, 2)
}

/// A share in percent with a fixed number of decimals; a dash if there is nothing to share.
fn percent_with(part: usize, whole: usize, decimals: usize) -> String {
    let share = (whole > 0).then(|| part as f64 / whole as f64 * 100.0);
    or_dash(share, |share| format!("{}%", decimal(share, decimals)))
}

/// A small number as a mantissa and a power of ten, on one line. An error that is not finite is a
/// result, not an absent figure: it shows as it is.
pub(crate) fn scientific(number: f64) -> String {
    let text = format!("{number:.1e}");
    match text.split_once('e') {
        Some((mantissa, "0")) => mantissa.to_owned(),
        Some((mantissa, exponent)) => format!("{mantissa}\u{a0}×\u{a0}10{}", superscript(exponent)),
        None => text,
    }
}

/// Digits and minus signs raised.
fn superscript(text: &str) -> String {
    let raise = |c: char| match c.to_digit(10) {
        Some(digit) => RAISED[digit as usize],
        None => '⁻',
    };
    text.chars().map(raise).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [&str; 3] = ["T-shirt/top", "Bags & <more>", "Ankle boot"];
    const PIXELS: [u8; 784] = [7; 784];

    fn attention(rows: &[&[f64]]) -> LayerAttention {
        let mean = rows.iter().map(|row| row.to_vec()).collect();
        LayerAttention { layer: "conv2".to_owned(), mean }
    }

    fn layer(gpu_ms: Option<f64>) -> LayerRow {
        LayerRow {
            name: "conv1".to_owned(),
            shape: "1→32".to_owned(),
            kernel: "tile<8>".to_owned(),
            gpu_ms,
            gflops: gpu_ms.map(|ms| 5000.0 * ms),
        }
    }

    fn sample(truth: usize, predicted: usize) -> Sample<'static> {
        Sample { index: 4711, pixels: &PIXELS, truth, predicted, confidence: 0.625 }
    }

    /// A report without layers, samples, predictions and attention.
    fn empty() -> Report<'static> {
        Report {
            adapter: "Card <1>",
            driver: "driver & co",
            total: 10_000,
            batch: 100,
            correct: 9213,
            reference_correct: 9214,
            class_mismatches: 1,
            ambiguous: 3,
            max_logit_error: 3.14e-5,
            max_cpu_error: None,
            cpu_sample: 256,
            images_per_second: 123_456.7,
            classes: &CLASSES,
            layers: &[],
            samples: &[],
            confusion: &[],
            attention: &[],
        }
    }

    #[test]
    fn summary_names_both_accuracies_and_the_difference() {
        assert_eq!(
            empty().summary(),
            "On Card &lt;1&gt;, dynconv classifies 9,213 (92.13%) of 10,000 images correctly, the \
             float64 PyTorch reference 9,214 (92.14%): 1 image is classified differently \
             (3 ambiguous aside), and the largest difference of a logit is 3.1\u{a0}×\u{a0}10⁻⁵."
        );
    }

    #[test]
    fn empty_report_says_what_is_missing() {
        let html = empty().to_html().expect("page");
        for missing in ["layers", "sample images", "predictions", "kernel attention"] {
            assert!(html.contains(&format!("No {missing}")), "{missing}");
        }
        assert!(html.contains("not compared in this run"));
    }

    #[test]
    fn every_class_and_number_appears() {
        let layers = [layer(Some(0.25)), layer(Some(0.75))];
        let samples = [sample(0, 2)];
        let confusion = [vec![1977, 21, 2], vec![0, 1999, 1], vec![4, 5, 1991]];
        let maps = [attention(&[&[0.31, 0.69], &[0.42, 0.58], &[0.53, 0.47]])];
        let report = Report {
            layers: &layers,
            samples: &samples,
            confusion: &confusion,
            attention: &maps,
            max_cpu_error: Some(2e-6),
            ..empty()
        };
        let html = report.to_html().expect("page");
        let expected = [
            "92.13%",
            "123,457",
            "driver &amp; co",
            "in batches of 100, by the host's clock",
            "A batch is 100 images and takes 0.81 ms of the host's clock",
            "2.0\u{a0}×\u{a0}10⁻⁶",
            "0.250",
            "1,250.0",
            "75.0%",
            "1.000 ms",
            "✗ Ankle boot",
            "62.5% · #4711",
            "1,977",
            "98.9%",
            "21",
            "0.31",
            "0.47",
            "tile&lt;8&gt;",
        ];
        for text in expected {
            assert!(html.contains(text), "{text}");
        }
        for class in CLASSES {
            assert!(html.contains(&format!("<th scope=\"row\">{}</th>", escape(class))), "{class}");
        }
        assert!(!html.contains("<more>") && !html.contains("tile<8>"));
    }

    #[test]
    fn wrong_samples_are_marked_and_come_first() {
        let samples = [sample(0, 0), sample(1, 2), sample(2, 2)];
        let html = Report { samples: &samples, ..empty() }.to_html().expect("page");
        assert_eq!(html.matches("<img src=\"data:image/png;base64,").count(), 3);
        assert_eq!(html.matches("<figure class=\"wrong\">").count(), 1);
        assert!(html.find("<strong>✗ Ankle boot") < html.find("✓ T-shirt/top"));
    }

    #[test]
    fn image_survives_the_data_uri() {
        let pixels: Vec<u8> = (0..=255).cycle().take(784).collect();
        let uri = data_uri(&pixels).expect("image");
        let bytes = STANDARD.decode(uri.split_once(',').expect("comma").1).expect("base64");
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("header");
        let mut decoded = vec![0; 784];
        reader.next_frame(&mut decoded).expect("pixels");
        assert_eq!(decoded, pixels);
    }

    #[test]
    fn image_of_another_size_is_an_error() {
        let samples = [Sample { pixels: &PIXELS[1..], ..sample(0, 0) }];
        assert!(Report { samples: &samples, ..empty() }.to_html().is_err());
    }

    #[test]
    fn absent_times_are_explained() {
        let layers = [layer(None)];
        let html = Report { layers: &layers, ..empty() }.to_html().expect("page");
        assert!(html.contains("no timestamps on this adapter"));
        assert!(html.contains("data-label=\"GFLOP/s\">–</td>"));
    }

    #[test]
    fn mistakes_are_ranked() {
        let confusion = [vec![5, 1, 0], vec![3, 5, 0], vec![0, 2, 5]];
        let report = Report { confusion: &confusion, ..empty() };
        assert_eq!(report.mistakes(), [(1, 0, 3), (2, 1, 2), (0, 1, 1)]);
        assert!(
            report
                .to_html()
                .expect("page")
                .contains("Bags &amp; &lt;more&gt; taken for T-shirt/top: 3")
        );
    }

    #[test]
    fn attention_sentences_follow_the_data() {
        let report = empty();
        let apart = attention(&[&[0.9, 0.1], &[0.8, 0.2], &[0.7, 0.3]]);
        let sentence = report.contrast_sentence(&apart);
        assert!(sentence.starts_with("T-shirt/top and Ankle boot differ most (L1 distance 0.40)"));
        assert!(
            dominance_sentence(&apart).starts_with("Kernel 1 dominates: its mean share is 0.80")
        );

        let same = attention(&[&[0.5, 0.5], &[0.5, 0.5]]);
        assert!(report.contrast_sentence(&same).starts_with("All classes get nearly the same"));
        assert!(dominance_sentence(&same).starts_with("No kernel dominates"));
    }

    #[test]
    fn classes_without_images_have_no_attention() {
        let partial = attention(&[&[0.2, 0.8], &[f64::NAN, f64::NAN], &[0.0, 0.0]]);
        assert_eq!(partial.rows().count(), 1);
        assert!(empty().attention_row(&partial, 1, 1.0).contains("<td>–</td><td>–</td>"));
        assert!(empty().contrast_sentence(&partial).contains("no two classes"));
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(100), "100");
        assert_eq!(decimal(1234.56, 1), "1,234.6");
        assert_eq!(decimal(f64::NAN, 1), DASH);
        assert_eq!(percent(0, 0), DASH);
        assert_eq!(scientific(0.0), "0.0");
        assert_eq!(scientific(f64::NAN), "NaN");
        assert_eq!(escape("<a href=\"'&\">"), "&lt;a href=&quot;&#39;&amp;&quot;&gt;");
    }
}
