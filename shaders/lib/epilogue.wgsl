// import conv, numbers, y

// What follows a sum: filter gain, bias, affine, residual, activation. See conv.wgsl.

// The error function by Abramowitz and Stegun, "Handbook of Mathematical Functions", 7.1.26:
// absolute error below 1.5e-7.
fn erf(value: f32) -> f32 {
    let t = 1.0 / (1.0 + 0.3275911 * abs(value));
    let high = (1.061405429 * t - 1.453152027) * t + 1.421413741;
    let series = ((high * t - 0.284496736) * t + 0.254829592) * t;
    return sign(value) * (1.0 - series * exp(-value * value));
}

fn star_relu(positive: f32) -> f32 {
    return params.activation_a * positive * positive + params.activation_b;
}

fn activate(value: f32) -> f32 {
    switch ACTIVATION {
        case 1u: { return at_least(value, 0.0); }
        case 2u: { return within(value, 0.0, 6.0); }
        case 3u: { return value * sigmoid(value); }
        case 4u: { return 0.5 * value * (1.0 + erf(value * 0.70710678)); }
        case 5u: { return value * within(value + 3.0, 0.0, 6.0) / 6.0; }
        case 6u: { return within(value + 3.0, 0.0, 6.0) / 6.0; }
        case 7u: { return select(params.activation_a * value, value, value >= 0.0); }
        case 8u: { return star_relu(at_least(value, 0.0)); }
        case 9u: { return sigmoid(value); }
        case 10u: { return 2.0 * sigmoid(2.0 * value) - 1.0; }
        default: { return value; }
    }
}

// What is stored for a sum: after filter gain, bias, affine, residual and activation, if it is the
// whole sum.
fn epilogue(b: u32, channel: u32, position: u32, sum: f32) -> f32 {
    let channels = params.groups * params.c_out;
    let place = element(Y_NHWC, b, channels, channel, positions(), position);
    var value = sum;
    if CONTINUES {
        value += y_value(params.y_base + place);
    }
    if !ENDS {
        return value;
    }
    if FILTER_GAIN {
        let first = params.gains_base + b * params.gain_stride + params.filter_gain_offset;
        value *= gains[first + channel];
    }
    if HAS_BIAS {
        for (var k = 0u; k < MIXED; k++) {
            let first = params.sample_weights_base + b * params.sample_stride + params.bias_offset;
            value += mix_at(b, k, position) * sample_weights[first + k * channels + channel];
        }
    }
    if HAS_AFFINE {
        value = value * affine[params.affine_base + channel]
            + affine[params.affine_base + channels + channel];
    }
    if HAS_RESIDUAL {
        value += residual_value(params.residual_base + place);
    }
    return activate(value);
}
