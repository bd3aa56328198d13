//! Heads whose two halves lie interleaved in a file.

use candle_core::Tensor;

/// The rows of a query or key tensor, as GGUF stores those of llama.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interleaved {
    pub(super) head_dim: usize,
}

impl Interleaved {
    /// The rows of whole heads with each one's first half before its second, which one rotary kernel wants.
    pub(super) fn apart(self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        let shape = tensor.shape();
        let (rows, columns) = (tensor.dim(0)?, shape.elem_count() / tensor.dim(0)?);
        let pairs = tensor.reshape((rows / self.head_dim, self.head_dim / 2, 2, columns))?;
        pairs.transpose(1, 2)?.contiguous()?.reshape(shape)
    }

    /// The same for rows of `row_len` of anything.
    pub(super) fn rows_apart<T: Copy>(self, rows: &[T], row_len: usize) -> Vec<T> {
        let Self { head_dim } = self;
        let half = head_dim / 2;
        let origins = (0..rows.len() / row_len).map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            head * head_dim + within % half * 2 + within / half
        });
        origins.flat_map(|row| &rows[row * row_len..(row + 1) * row_len]).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn either_way_first_halves_come_first() {
        let heads = Interleaved { head_dim: 8 };
        let rows: Vec<u32> = (0..3 * 8 * 5).collect();
        let tensor = Tensor::from_slice(&rows, (24, 5), &Device::Cpu).expect("fits");
        let apart = heads.apart(&tensor).and_then(|apart| apart.to_vec2::<u32>()).expect("rearranges");
        assert_eq!(apart.concat(), heads.rows_apart(&rows, 5));
        let firsts: Vec<u32> = apart[..8].iter().map(|row| row[0] / 5).collect();
        assert_eq!(firsts, [0, 2, 4, 6, 1, 3, 5, 7]);
    }
}
