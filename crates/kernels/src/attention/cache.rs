//! Where keys and values lie, and how they are kept.

use half::f16;
use half::slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _};

use super::AttentionBatch;
use crate::matrix::ROUNDER;
use crate::simd::{LANES, Simd};
use crate::zeroed::{ZeroIsValid, Zeroed};

/// How numbers lie in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvFormat {
    /// 16 bits.
    F16,
    /// 32 bits.
    F32,
    /// 8 bits, with one scale for each key and each value of a head. It depends on nothing but the numbers it scales.
    Int8,
}

/// A cache's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Blocks in all.
    pub num_blocks: usize,
    /// Tokens in a block.
    pub block_size: usize,
    /// Key and value heads.
    pub num_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// How numbers are kept.
    pub format: KvFormat,
}

impl KvLayout {
    /// Slots of a block in whole vectors.
    pub(super) const fn slots(&self) -> usize {
        self.block_size.next_multiple_of(LANES)
    }

    /// A value's width in whole vectors.
    pub(super) const fn dims(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    pub(super) const fn key_block(&self) -> usize {
        self.head_dim * self.slots()
    }

    pub(super) const fn value_block(&self) -> usize {
        self.block_size * self.dims()
    }
}

/// One layer's keys and values. A block's part for one head is contiguous: keys as (dim, slot), so that one vector holds
/// one dimension of sixteen keys and scores need no sums across lanes; values as (slot, dim).
#[derive(Debug)]
pub struct KvCache {
    pub(super) layout: KvLayout,
    pub(super) numbers: Numbers,
}

#[derive(Debug)]
pub(super) enum Numbers {
    F16(Store<u16>),
    F32(Store<f32>),
    Int8(Store<i8>),
}

#[derive(Debug)]
pub(super) struct Store<N: Number> {
    keys: Zeroed<N>,
    values: Zeroed<N>,
    /// (part, slot); none if numbers need no scales.
    key_scales: Zeroed<f32>,
    value_scales: Zeroed<f32>,
}

/// One block's part for one head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a, N> {
    /// (dim, slot)
    pub(super) keys: &'a [N],
    /// (slot, dim)
    pub(super) values: &'a [N],
    /// What each slot's key and value are to be multiplied with.
    pub(super) scales: Option<[&'a [f32]; 2]>,
}

impl<N> Part<'_, N> {
    pub(super) const EMPTY: Self = Self { keys: &[], values: &[], scales: None };
}

/// A number of the cache.
pub(super) trait Number: ZeroIsValid + Default + std::fmt::Debug + Send + Sync {
    /// Whether a head's numbers share a scale.
    const SCALED: bool;
    /// Whether loading one is more than reading it.
    const IS_NARROW: bool;

    /// Sixteen of them, without their scale.
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F32;

    /// Turns a head into numbers of this kind, and returns their scale.
    fn convert(head: &[f32], to: &mut [Self]) -> f32;
}

/// The bits of an `f16`.
impl Number for u16 {
    const SCALED: bool = false;
    const IS_NARROW: bool = true;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load_half(from)
    }

    fn convert(head: &[f32], to: &mut [Self]) -> f32 {
        to.reinterpret_cast_mut::<f16>().convert_from_f32_slice(head);
        1.0
    }
}

impl Number for f32 {
    const SCALED: bool = false;
    const IS_NARROW: bool = false;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load(from)
    }

    fn convert(head: &[f32], to: &mut [Self]) -> f32 {
        to.copy_from_slice(head);
        1.0
    }
}

impl Number for i8 {
    const SCALED: bool = true;
    const IS_NARROW: bool = true;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::F32 {
        simd.load_bytes(from)
    }

    fn convert(head: &[f32], to: &mut [Self]) -> f32 {
        let largest = head.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        // Zero, unless one of them is no number: maxima and conversions would hide that.
        let poison: f32 = head.iter().map(|value| value * 0.0).sum();
        let inverse = 127.0 / largest;
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        for (to, value) in to.iter_mut().zip(head) {
            *to = (value * inverse + ROUNDER - ROUNDER) as Self;
        }
        largest / 127.0 + poison
    }
}

impl<N: Number> Store<N> {
    fn new(layout: &KvLayout) -> Option<Self> {
        let parts = layout.num_blocks.checked_mul(layout.num_kv_heads)?;
        let scales = if N::SCALED { parts.checked_mul(layout.slots())? } else { 0 };
        Some(Self {
            keys: Zeroed::new(parts.checked_mul(layout.key_block())?)?,
            values: Zeroed::new(parts.checked_mul(layout.value_block())?)?,
            key_scales: Zeroed::new(scales)?,
            value_scales: Zeroed::new(scales)?,
        })
    }

    /// The first `used` slots of a block; of keys, all.
    pub(super) fn part(&self, layout: &KvLayout, block: u32, kv_head: usize, used: usize) -> Part<'_, N> {
        let part = block as usize * layout.num_kv_heads + kv_head;
        let (key_block, slots) = (layout.key_block(), layout.slots());
        let scales =
            || [&self.key_scales, &self.value_scales].map(|scales| &scales[part * slots..(part + 1) * slots]);
        Part {
            keys: &self.keys[part * key_block..(part + 1) * key_block],
            values: &self.values[part * layout.value_block()..][..used * layout.dims()],
            scales: N::SCALED.then(scales),
        }
    }

    fn write(&mut self, layout: &KvLayout, batch: &AttentionBatch<'_>) {
        let KvLayout { block_size, num_kv_heads, head_dim, .. } = *layout;
        let (slots, dims) = (layout.slots(), layout.dims());
        let width = num_kv_heads * head_dim;
        assert!(batch.key.len() == batch.slots.len() * width && batch.value.len() == batch.key.len());
        let (mut rotated, mut numbers) = (vec![0.0; head_dim], vec![N::default(); head_dim]);
        for (row, slot) in batch.slots.iter().enumerate() {
            let (block, slot) = (*slot as usize / block_size, *slot as usize % block_size);
            for kv_head in 0..num_kv_heads {
                let from = row * width + kv_head * head_dim;
                batch.rope.rotate(row, &batch.key[from..from + head_dim], &mut rotated);
                let part = block * num_kv_heads + kv_head;
                let key_scale = N::convert(&rotated, &mut numbers);
                let keys = &mut self.keys[part * layout.key_block()..][..layout.key_block()];
                for (keys, number) in keys.chunks_exact_mut(slots).zip(&numbers) {
                    keys[slot] = *number;
                }
                let values = &mut self.values[part * layout.value_block() + slot * dims..][..head_dim];
                let value_scale = N::convert(&batch.value[from..from + head_dim], values);
                if N::SCALED {
                    self.key_scales[part * slots + slot] = key_scale;
                    self.value_scales[part * slots + slot] = value_scale;
                }
            }
        }
    }
}

impl KvCache {
    /// Empty caches, one a layer, which take memory as they are filled. None where there is not that much memory: each
    /// might be promised what all of them together would never get.
    pub fn of_layers(layout: KvLayout, num_layers: usize) -> Option<Vec<Self>> {
        match layout.format {
            KvFormat::F16 => Self::of(layout, num_layers, Numbers::F16),
            KvFormat::F32 => Self::of(layout, num_layers, Numbers::F32),
            KvFormat::Int8 => Self::of(layout, num_layers, Numbers::Int8),
        }
    }

    fn of<N: Number>(
        layout: KvLayout,
        num_layers: usize,
        numbers: fn(Store<N>) -> Numbers,
    ) -> Option<Vec<Self>> {
        let parts = num_layers.checked_mul(layout.num_blocks)?.checked_mul(layout.num_kv_heads)?;
        drop(Zeroed::<N>::new(parts.checked_mul(layout.key_block() + layout.value_block())?)?);
        (0..num_layers).map(|_| Some(Self { layout, numbers: numbers(Store::new(&layout)?) })).collect()
    }

    /// Writes the batch's keys, rotated, and its values.
    ///
    /// # Panics
    /// If widths do not fit together, or a slot is beyond the cache.
    pub fn write(&mut self, batch: &AttentionBatch<'_>) {
        match &mut self.numbers {
            Numbers::F16(store) => store.write(&self.layout, batch),
            Numbers::F32(store) => store.write(&self.layout, batch),
            Numbers::Int8(store) => store.write(&self.layout, batch),
        }
    }
}
