//! Weights of four bits against plain loops, in every form.

use half::f16;
use proptest::prelude::*;

use crate::tests::{
    WIDE, a_bad_row_harms_itself_alone, a_gated_product_is_that_of_plain_loops,
    a_long_prompt_is_cut_into_blocks_and_pieces_that_no_row_shows, a_product_is_that_of_plain_loops,
    assert_close, company_changes_no_row, dequantized, noise, plain_product, pools, product, rounded,
};
use crate::{FourBits, GROUP, Matrix};

/// Groups that look random, with scales of both signs.
fn groups(seed: u64, count: usize) -> Vec<FourBits> {
    let numbers = noise(seed, count * (2 + GROUP / 2));
    let group = |numbers: &[f32]| FourBits {
        scale: f16::from_f32(numbers[0] / 15.0),
        minimum: f16::from_f32(numbers[1]),
        nibbles: std::array::from_fn(|index| (numbers[2 + index] * 127.0) as i8 as u8),
    };
    numbers.chunks_exact(2 + GROUP / 2).map(group).collect()
}

fn matrix(seed: u64, outputs: usize, inputs: usize) -> Matrix {
    Matrix::of_four_bits(outputs, inputs, &groups(seed, outputs * inputs / GROUP))
}

#[test]
fn weights_are_what_their_groups_say() {
    for (outputs, inputs) in [(1, 32), (3, 64), (16, 32), (17, 96), (40, 160)] {
        let groups = groups(7, outputs * inputs / GROUP);
        let found = dequantized(&Matrix::of_four_bits(outputs, inputs, &groups));
        for (found, group) in found.chunks_exact(GROUP).zip(&groups) {
            for (index, found) in found.iter().enumerate() {
                let byte = group.nibbles[index % 16];
                let nibble = if index < 16 { byte % 16 } else { byte / 16 };
                let expected = f64::from(group.scale) * f64::from(nibble) + f64::from(group.minimum);
                assert!((f64::from(*found) - expected).abs() < 1e-6, "{found} instead of {expected}");
            }
        }
    }
}

#[test]
fn a_long_prompt_is_computed_as_each_row_alone() {
    a_long_prompt_is_cut_into_blocks_and_pieces_that_no_row_shows(&matrix(6, 70, WIDE));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_those_of_plain_loops(
        rows in 0_usize..20, outputs in 1_usize..70, inputs in 1_usize..6, seed: u64, with_bias: bool,
    ) {
        let matrix = matrix(seed, outputs, inputs * GROUP);
        a_product_is_that_of_plain_loops(&matrix, rows, seed, with_bias, 2e-5);
    }

    #[test]
    fn a_row_alone_is_the_same_as_in_company(rows in 1_usize..40, seed: u64) {
        company_changes_no_row(&matrix(seed, 50, 96), rows, seed);
    }

    #[test]
    fn gated_products_take_either_kind_of_weights(rows in 1_usize..12, outputs in 1_usize..40, seed: u64) {
        let inputs = 64;
        let gate = matrix(seed, outputs, inputs);
        let up = Matrix::new(outputs, inputs, &noise(seed ^ 3, outputs * inputs));
        a_gated_product_is_that_of_plain_loops(&gate, &up, rows, seed);
    }
}

#[test]
fn extreme_values_neither_overflow_nor_poison_their_neighbours() {
    let inputs = 2 * GROUP;
    for (scale, minimum, byte, value) in [
        (1.0, 0.0, 0xff, 1.0),
        (1.0, 0.0, 0xff, -3e4),
        (4096.0, -32_768.0, 0x0f, 1.0),
        (-4096.0, 32_768.0, 0xf0, -1.0),
        (6e-8, 0.0, 0xff, 1e30),
        (0.0, 0.0, 0xff, 1.0),
        (1.0, -7.5, 0x78, 0.0),
    ] {
        let group = FourBits {
            scale: f16::from_f32(scale),
            minimum: f16::from_f32(minimum),
            nibbles: [byte; GROUP / 2],
        };
        let matrix = Matrix::of_four_bits(17, inputs, &[group; 17 * 2]);
        let x = vec![value; 9 * inputs];
        let expected = plain_product(&rounded(&x, inputs), &dequantized(&matrix), inputs);
        for pool in pools() {
            assert_close(&product(&pool, &matrix, &x, None, &[0.0; 9 * 17]), &expected, 1e-5);
        }
    }
}

#[test]
fn a_row_with_one_that_is_no_number_is_none_and_harms_itself_alone() {
    a_bad_row_harms_itself_alone(&matrix(1, 5, 2 * GROUP));
}

#[test]
fn a_matrix_takes_five_bits_a_weight() {
    assert_eq!(matrix(1, 32, 64).bytes() * 8, 32 * 64 * 5);
}
