//! What the types of a GGUF file's numbers are called.

use candle_core::quantized::GgmlDType;

/// The types that weights are stored in, by name.
pub const DTYPES: [(&str, GgmlDType); 13] = [
    ("f32", GgmlDType::F32),
    ("f16", GgmlDType::F16),
    ("bf16", GgmlDType::BF16),
    ("q8_0", GgmlDType::Q8_0),
    ("q6_k", GgmlDType::Q6K),
    ("q5_k", GgmlDType::Q5K),
    ("q5_1", GgmlDType::Q5_1),
    ("q5_0", GgmlDType::Q5_0),
    ("q4_k", GgmlDType::Q4K),
    ("q4_1", GgmlDType::Q4_1),
    ("q4_0", GgmlDType::Q4_0),
    ("q3_k", GgmlDType::Q3K),
    ("q2_k", GgmlDType::Q2K),
];

/// The name of a type; `q8_1` and `q8_k`, which hold activations, have theirs though no weights are stored so.
pub fn dtype_name(dtype: GgmlDType) -> &'static str {
    match dtype {
        GgmlDType::Q8_1 => "q8_1",
        GgmlDType::Q8K => "q8_k",
        _ => DTYPES.iter().find(|(_, known)| *known == dtype).map_or("unknown", |(name, _)| name),
    }
}
