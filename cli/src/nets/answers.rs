//! What networks say of files: classes and their probabilities.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use comfy_table::Table;
use serde_json::json;

use crate::bench::table::plain;

/// What a file shows or sounds like: classes, or why there are none.
pub(super) type Answer = Result<Vec<Class>>;

/// A class of a file.
pub(super) struct Class {
    number: usize,
    probability: f64,
}

/// Classes by their probability, the most likely first.
pub(super) fn by_probability(probabilities: Vec<f64>) -> Vec<Class> {
    let class = |(number, probability)| Class { number, probability };
    let mut all: Vec<Class> = probabilities.into_iter().enumerate().map(class).collect();
    all.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    all
}

pub(super) fn read_labels(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// What classes are called, or nothing.
pub(super) struct Labels(Option<Vec<String>>);

impl Labels {
    /// Refuses labels of another number than the classes.
    pub(super) fn of(
        labels: Option<Vec<String>>,
        file: Option<&Path>,
        classes: usize,
    ) -> Result<Self> {
        if let (Some(labels), Some(file)) = (&labels, file) {
            let (name, count) = (file.display(), labels.len());
            ensure!(
                count == classes,
                "{name} has {count} labels, and the network {classes} classes"
            );
        }
        Ok(Self(labels))
    }

    fn of_class(&self, class: usize) -> String {
        let label = self.0.as_ref().and_then(|labels| labels.get(class));
        label.cloned().unwrap_or_else(|| format!("class {class}"))
    }
}

/// A row a class; a file's name stands before its first, under what files are called.
pub(super) fn table(
    kind: &'static str,
    answers: &[(&Path, Answer)],
    top: usize,
    labels: &Labels,
) -> Table {
    let mut table = plain(&[kind, "class", "%"], 2);
    for (file, answer) in answers {
        let mut name = file.display().to_string();
        for class in answer.iter().flatten().take(top) {
            let percent = format!("{:.1}", 100.0 * class.probability);
            table.add_row([std::mem::take(&mut name), labels.of_class(class.number), percent]);
        }
    }
    table
}

/// A line of JSON a file.
pub(super) fn lines(answers: &[(&Path, Answer)], top: usize, labels: &Labels) -> String {
    let line = |(file, answer): &(&Path, Answer)| {
        let path = file.to_string_lossy();
        let line = match answer {
            Ok(classes) => {
                let classes = classes.iter().take(top).map(|class| {
                    let label = labels.of_class(class.number);
                    json!({
                        "class": class.number, "label": label, "probability": class.probability,
                    })
                });
                json!({ "path": path, "classes": classes.collect::<Vec<_>>() })
            }
            Err(error) => json!({ "path": path, "error": format!("{error:#}") }),
        };
        format!("{line}\n")
    };
    answers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_class_comes_first() {
        let all = by_probability(vec![0.1, 0.6, 0.0, 0.3]);
        assert_eq!(all.iter().map(|class| class.number).collect::<Vec<_>>(), [1, 3, 0, 2]);
    }
}
