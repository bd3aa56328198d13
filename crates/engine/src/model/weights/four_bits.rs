//! Blocks of a GGUF file that hold weights of four bits, as kernels take them.

use candle_core::quantized::{GgmlDType, QTensor};
use half::f16;
use kernels::{FourBits, GROUP};

/// What is taken away from each nibble of a Q4_0 block.
const OFFSET: f32 = 8.0;
const HALF_BYTES: usize = size_of::<f16>();

/// Whether tensors of this type hold four bits a weight, in groups as large as the kernels'.
pub(super) const fn is_four_bits(dtype: GgmlDType) -> bool {
    matches!(dtype, GgmlDType::Q4_0 | GgmlDType::Q4_1)
}

/// The blocks of a tensor of such a type, without any rounding; `None` where that cannot be.
pub(super) fn blocks(tensor: &QTensor) -> candle_core::Result<Option<Vec<FourBits>>> {
    let dtype = tensor.dtype();
    let whole_rows = tensor.shape().dims().last().is_some_and(|inputs| inputs.is_multiple_of(GROUP));
    if !is_four_bits(dtype) || !whole_rows {
        return Ok(None);
    }
    let bytes = tensor.data()?;
    Ok(bytes.chunks_exact(dtype.type_size()).map(|block| read(block, dtype)).collect())
}

/// One block; `None` if what it says is beyond 16 bits or no number.
fn read(block: &[u8], dtype: GgmlDType) -> Option<FourBits> {
    let (scale, rest) = number(block)?;
    let (minimum, rest) = match dtype {
        GgmlDType::Q4_1 => number(rest)?,
        // Three bits more in the exponent: nothing is rounded, unless it overflows.
        _ => (f16::from_f32(-OFFSET * scale.to_f32()), rest),
    };
    let nibbles = rest.try_into().ok()?;
    (scale.is_finite() && minimum.is_finite()).then_some(FourBits { scale, minimum, nibbles })
}

fn number(bytes: &[u8]) -> Option<(f16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<HALF_BYTES>()?;
    Some((f16::from_le_bytes(*first), rest))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use kernels::Matrix;

    use super::*;

    fn tensor(dtype: GgmlDType) -> QTensor {
        let numbers: Vec<f32> = (0..3 * 64).map(|index| (index as f32 * 0.7).sin() * 0.1 + 0.02).collect();
        let tensor = Tensor::from_vec(numbers, (3, 64), &Device::Cpu).expect("fits");
        QTensor::quantize(&tensor, dtype).expect("quantizes")
    }

    #[test]
    fn blocks_hold_what_candle_makes_of_them() {
        for dtype in [GgmlDType::Q4_0, GgmlDType::Q4_1] {
            let tensor = tensor(dtype);
            let blocks = blocks(&tensor).expect("reads").expect("four bits");
            let matrix = Matrix::of_four_bits(3, 64, &blocks);
            let expected = tensor.dequantize(&Device::Cpu).and_then(|rows| rows.to_vec2::<f32>());
            for (output, expected) in expected.expect("dequantizes").iter().enumerate() {
                let mut row = vec![0.0; 64];
                matrix.row(output, &mut row);
                // candle rounds the product before it adds the minimum.
                for (found, expected) in row.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-7, "{dtype:?}: {found} instead of {expected}");
                }
            }
        }
    }

    #[test]
    fn other_types_are_none() {
        for dtype in [GgmlDType::Q8_0, GgmlDType::Q5_1, GgmlDType::F32] {
            assert_eq!(blocks(&tensor(dtype)).expect("reads"), None, "{dtype:?}");
        }
    }

    #[test]
    fn a_block_that_overflows_is_refused_and_the_largest_that_does_not_is_exact() {
        let block = |scale: f32| [f16::from_f32(scale).to_le_bytes().as_slice(), &[0x0f; 16]].concat();
        for (scale, minimum) in
            [(-8184.0, Some(65_472.0)), (8192.0, None), (f32::NAN, None), (6e-8, Some(-4.8e-7))]
        {
            let found = read(&block(scale), GgmlDType::Q4_0).map(|group| group.minimum.to_f32());
            let near = |expected: f32| found.is_some_and(|found| (found / expected - 1.0).abs() < 0.01);
            assert!(minimum.map_or(found.is_none(), near), "{scale}: {found:?} instead of {minimum:?}");
        }
    }
}
