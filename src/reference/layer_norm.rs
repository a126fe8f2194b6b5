//! Truth of `shaders/layer_norm.wgsl`: layer norm over the channels.

use super::Conv;

/// Normalises the channels of `conv`, whose weights are not looked at, at every position.
#[must_use]
pub fn layer_norm(conv: &Conv<'_>, epsilon: f64) -> Vec<f64> {
    let channels = conv.geometry.c_in;
    conv.collect(|b, channel, position| {
        let place = conv.place(position);
        let values: Vec<f64> =
            (0..channels).map(|channel| conv.input_at(b, channel, place)).collect();
        let mean = values.iter().sum::<f64>() / channels as f64;
        let squares = values.iter().map(|value| (value - mean) * (value - mean));
        let variance = squares.sum::<f64>() / channels as f64;
        (values[channel] - mean) / (variance + epsilon).sqrt()
    })
}
