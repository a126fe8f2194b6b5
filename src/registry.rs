//! The kernels, one line each: the name in Rust, the stem of its three files (`shaders/K.wgsl`,
//! `src/kernels/K.rs`, `src/reference/K.rs`), and what it computes.
//!
//! The convolutions stand in the planner's order of preference: the first that accepts a problem
//! and suits it runs.

/// Gives the list to the macro `$then`.
macro_rules! registry {
    ($then:ident) => {
        $then! {
            steps {
            AveragePool average_pool "mean over all positions, or over one axis";
            WindowPool window_pool "largest or mean of what windows cover";
            AttentionMlp attention_mlp "fully connected attention branch";
            Aggregate aggregate "mixes each sample's kernel from the bank";
            AggregateWide aggregate_wide "mixes kernels in blocks, by wide loads";
            WeightedMean weighted_mean "mean over the positions, weighted";
            Gate gate "gains of elements, and dynamic ReLU";
            LayerNorm layer_norm "layer norm over the channels";
            Resample resample "maps enlarged, with a border, or inside larger tensors";
            Gru gru "recurrence of a gated recurrent unit";
            ChannelSoftmax channel_softmax "softmax over the channels at every position";
            Demodulate demodulate "gains of a modulated convolution";
            WinogradInput winograd_input "takes tiles of inputs to the domain of filtering";
            WinogradOutput winograd_output "brings tiles of products back";
            SumSlices sum_slices "adds up the slices of a split sum (split-K)";
            }
            convolutions {
            ConvDepthwiseStrip conv_depthwise_strip "depthwise to 7 x 7, stride 1 or 2, by strips";
            ConvDepthwise conv_depthwise "depthwise: one input channel a group";
            Conv3x3Simd8 conv_3x3_simd8 "3 x 3, stride 1, by subgroups of 8";
            Conv3x3s2Simd8 conv_3x3s2_simd8 "3 x 3, stride 2, by subgroups of 8";
            Conv3x3WinogradSimd8 conv_3x3_winograd_simd8 "3 x 3, filtered along the rows";
            ConvPointwiseSimd8 conv_pointwise_simd8 "1 x 1 by subgroups of 8";
            ConvStripSimd8 conv_strip_simd8 "wide rows of taps by subgroups of 8";
            ConvGemmSimd8 conv_gemm_simd8 "implicit GEMM by subgroups of 8";
            ConvGemmCoopmat conv_gemm_coopmat "implicit GEMM in cooperative matrices";
            ConvGemmShared conv_gemm_shared "implicit GEMM in large tiles, in workgroup memory";
            ConvPointwise conv_pointwise "1 x 1 as a matrix product in registers";
            ConvDirect conv_direct "an output an invocation";
            ConvGemmRegister conv_gemm_register "implicit GEMM in registers";
            ConvTiled conv_tiled "implicit GEMM in small tiles, in workgroup memory";
            }
        }
    };
}
pub(crate) use registry;
