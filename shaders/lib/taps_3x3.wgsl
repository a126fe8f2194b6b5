// The 3 x 3 taps of one output channel.
struct Taps3x3 {
    top: vec3<f32>,
    middle: vec3<f32>,
    bottom: vec3<f32>,
}
