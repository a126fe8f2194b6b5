//! Truth of `shaders/gru.wgsl`: the recurrence of a gated recurrent unit.

/// A recurrence in one or two directions.
#[derive(Clone, Copy, Debug)]
pub struct Recurrence<'a> {
    /// 1, or 2: the second goes from the last step to the first.
    pub directions: usize,
    /// Units of a direction.
    pub hidden: usize,
    /// Steps.
    pub steps: usize,
    /// Weights of each direction `[3, hidden, hidden]` for r, z and n, rows outermost.
    pub weights: &'a [f64],
    /// Biases `[directions, 3, hidden]`.
    pub bias: &'a [f64],
}

/// States `[batch, directions, hidden, steps]` from projections of the inputs `[batch, directions,
/// 3, hidden, steps]`.
#[must_use]
pub fn gru(recurrence: &Recurrence<'_>, projections: &[f64]) -> Vec<f64> {
    let Recurrence { directions, hidden, steps, weights, bias } = *recurrence;
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let of_sequence = hidden * steps;
    let mut states = vec![0.0; projections.len() / 3];
    for (sequence, states) in states.chunks_exact_mut(of_sequence).enumerate() {
        let direction = sequence % directions;
        let x = &projections[sequence * 3 * of_sequence..][..3 * of_sequence];
        let mut h = vec![0.0; hidden];
        for n in 0..steps {
            let time = if direction == 0 { n } else { steps - 1 - n };
            let recurrent = |gate: usize, unit: usize| {
                let row = (direction * 3 + gate) * hidden + unit;
                let products = weights[row * hidden..][..hidden].iter().zip(&h);
                bias[row] + products.map(|(w, h)| w * h).sum::<f64>()
            };
            let input = |gate: usize, unit: usize| x[(gate * hidden + unit) * steps + time];
            let next = (0..hidden).map(|unit| {
                let r = sigmoid(input(0, unit) + recurrent(0, unit));
                let z = sigmoid(input(1, unit) + recurrent(1, unit));
                let new = (input(2, unit) + r * recurrent(2, unit)).tanh();
                (1.0 - z) * new + z * h[unit]
            });
            h = next.collect();
            for (unit, h) in h.iter().enumerate() {
                states[unit * steps + time] = *h;
            }
        }
    }
    states
}
