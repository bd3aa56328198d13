//! Every form against plain loops, and the forms against each other.

use half::f16;
use proptest::prelude::*;

use crate::pool::Pool;
use crate::simd::{Form, Simd, Work};
use crate::{
    FourBits, GROUP, LANES, Matrix, Product, Rows, UnfinishedMatrix, gated_product, products, rms_norm,
};

/// One pool a form of this processor, and more threads than it has cores.
pub(crate) fn pools() -> Vec<Pool> {
    Form::all().map(|form| Pool::with_form(3, form)).collect()
}

/// Numbers between -1 and 1 that look random.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What is left of `values` when each group is rounded as activations are.
pub(crate) fn rounded(values: &[f32], width: usize) -> Vec<f32> {
    let mut rounded = Vec::with_capacity(values.len());
    for row in values.chunks(width) {
        for group in row.chunks(GROUP) {
            let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let inverse = if largest > 0.0 { 32_512.0 / largest } else { 0.0 };
            let scale = largest / 32_512.0;
            rounded.extend(group.iter().map(|value| (value * inverse).round_ties_even() * scale));
        }
    }
    rounded
}

pub(crate) fn dequantized(matrix: &Matrix) -> Vec<f32> {
    let mut weights = vec![0.0; matrix.outputs() * matrix.inputs()];
    for (output, row) in weights.chunks_exact_mut(matrix.inputs()).enumerate() {
        matrix.row(output, row);
    }
    weights
}

pub(crate) fn plain_product(x: &[f32], weights: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
    x.chunks_exact(inputs).flat_map(|x| weights.chunks_exact(inputs).map(move |w| dot(x, w))).collect()
}

pub(crate) fn product(
    pool: &Pool,
    matrix: &Matrix,
    x: &[f32],
    bias: Option<&[f32]>,
    before: &[f32],
) -> Vec<f32> {
    let rows = Rows::quantize(pool, x, matrix.inputs());
    let mut output = before.to_vec();
    products(pool, &rows, &mut [Product { matrix, bias, output: &mut output, add: true }]);
    output
}

pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!((f64::from(*found) - expected).abs() <= allowed, "{index}: {found} instead of {expected}");
    }
}

/// With and without a bias, added to what is there, in every form.
pub(crate) fn a_product_is_that_of_plain_loops(
    matrix: &Matrix,
    rows: usize,
    seed: u64,
    with_bias: bool,
    tolerance: f64,
) {
    let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
    let x = noise(seed ^ 1, rows * inputs);
    let (bias, before) = (noise(seed ^ 2, outputs), noise(seed ^ 3, rows * outputs));
    let mut expected = plain_product(&rounded(&x, inputs), &dequantized(matrix), inputs);
    for (index, expected) in expected.iter_mut().enumerate() {
        *expected += f64::from(before[index]);
        *expected += if with_bias { f64::from(bias[index % outputs]) } else { 0.0 };
    }
    let of_form = |pool: &Pool| product(pool, matrix, &x, with_bias.then_some(&bias), &before);
    forms_agree(&pools().iter().map(of_form).collect::<Vec<_>>(), &expected, tolerance);
}

pub(crate) fn company_changes_no_row(matrix: &Matrix, rows: usize, seed: u64) {
    let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
    let x = noise(seed ^ 1, rows * inputs);
    for pool in pools() {
        let together = product(&pool, matrix, &x, None, &vec![0.0; rows * outputs]);
        for (x, together) in x.chunks(inputs).zip(together.chunks(outputs)) {
            assert_eq!(product(&pool, matrix, x, None, &vec![0.0; outputs]), together);
        }
    }
}

pub(crate) fn a_gated_product_is_that_of_plain_loops(gate: &Matrix, up: &Matrix, rows: usize, seed: u64) {
    let (outputs, inputs) = (gate.outputs(), gate.inputs());
    let x = noise(seed, rows * inputs);
    let [gates, ups] =
        [gate, up].map(|matrix| plain_product(&rounded(&x, inputs), &dequantized(matrix), inputs));
    let expected: Vec<f64> =
        gates.iter().zip(&ups).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
    let of_form = |pool: &Pool| {
        let mut output = vec![0.0; rows * outputs];
        gated_product(pool, &Rows::quantize(pool, &x, inputs), gate, up, &mut output);
        output
    };
    forms_agree(&pools().iter().map(of_form).collect::<Vec<_>>(), &expected, 1e-4);
}

/// The first form is close to what is expected, and the others are equal to it.
fn forms_agree(found: &[Vec<f32>], expected: &[f64], tolerance: f64) {
    assert_close(&found[0], expected, tolerance);
    for other in &found[1..] {
        assert_eq!(other, &found[0], "forms agree to the bit");
    }
}

#[test]
fn quantized_weights_are_within_half_a_scale() {
    for (outputs, inputs) in [(1, 1), (3, 31), (16, 32), (17, 33), (40, 100)] {
        let weights = noise(7, outputs * inputs);
        let found = dequantized(&Matrix::new(outputs, inputs, &weights));
        for (found, weights) in found.chunks(inputs).zip(weights.chunks(inputs)) {
            for (found, weights) in found.chunks(GROUP).zip(weights.chunks(GROUP)) {
                let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
                for (found, weight) in found.iter().zip(weights) {
                    assert!((found - weight).abs() <= largest / 127.0 * 0.57, "{found} for {weight}");
                }
            }
        }
    }
}

#[test]
fn a_matrix_made_in_pieces_is_the_same() {
    let (outputs, inputs) = (70, 64);
    let weights = noise(5, outputs * inputs);
    let group = |at: usize| FourBits {
        scale: f16::from_f32(at as f32),
        nibbles: [at as u8; GROUP / 2],
        ..FourBits::default()
    };
    let groups: Vec<_> = (0..outputs * inputs / GROUP).map(group).collect();
    let whole = Matrix::new(outputs, inputs, &weights);
    let whole_of_4 = Matrix::of_four_bits(outputs, inputs, &groups);
    for rows in [1, 31, 32, 33, 69] {
        let mut matrix = UnfinishedMatrix::of_8_bits(outputs, inputs);
        weights.chunks(rows * inputs).for_each(|rows| matrix.push(rows));
        assert_eq!(dequantized(&matrix.finish()), dequantized(&whole), "{rows} at a time");
        let mut matrix = UnfinishedMatrix::of_4_bits(outputs, inputs);
        groups.chunks(rows * inputs / GROUP).for_each(|rows| matrix.push_groups(rows));
        assert_eq!(dequantized(&matrix.finish()), dequantized(&whole_of_4), "{rows} at a time");
    }
}

#[test]
fn a_matrix_has_as_many_outputs_as_were_said() {
    let panics = |matrix: fn()| std::panic::catch_unwind(matrix).is_err();
    assert!(panics(|| drop(UnfinishedMatrix::of_8_bits(2, 32).finish())), "none");
    assert!(panics(|| UnfinishedMatrix::of_8_bits(2, 32).push(&[1.0; 96])), "too many");
    assert!(panics(|| UnfinishedMatrix::of_8_bits(2, 32).push(&[1.0; 33])), "no whole ones");
    assert!(panics(|| UnfinishedMatrix::of_4_bits(2, 32).push(&[1.0; 64])), "of other weights");
    assert!(
        panics(|| UnfinishedMatrix::of_8_bits(1, 32).push_groups(&[FourBits::default()])),
        "of other weights"
    );
    for (outputs, inputs) in [(0, 32), (3, 0)] {
        assert_eq!(Matrix::new(outputs, inputs, &[]).outputs(), outputs);
    }
}

#[test]
fn weights_that_were_of_8_bits_are_kept_as_they_were() {
    let quantized: Vec<f32> = noise(3, 64).iter().map(|value| (value * 127.0).round()).collect();
    let mut weights: Vec<f32> = quantized.iter().map(|value| value * 0.015_625).collect();
    (weights[0], weights[32]) = (127.0 * 0.015_625, -127.0 * 0.015_625);
    assert_eq!(dequantized(&Matrix::new(2, 32, &weights)), weights);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_are_those_of_plain_loops(
        rows in 0_usize..20, outputs in 1_usize..70, inputs in 1_usize..140, seed: u64, with_bias: bool,
    ) {
        let matrix = Matrix::new(outputs, inputs, &noise(seed, outputs * inputs));
        a_product_is_that_of_plain_loops(&matrix, rows, seed, with_bias, 1e-5);
    }

    #[test]
    fn a_row_alone_is_the_same_as_in_company(rows in 1_usize..40, seed: u64) {
        company_changes_no_row(&Matrix::new(50, 96, &noise(seed, 50 * 96)), rows, seed);
    }

    #[test]
    fn gated_products_are_those_of_plain_loops(rows in 1_usize..12, outputs in 1_usize..40, seed: u64) {
        let inputs = 64;
        let [gate, up] = [2, 3].map(|salt| Matrix::new(outputs, inputs, &noise(seed ^ salt, outputs * inputs)));
        a_gated_product_is_that_of_plain_loops(&gate, &up, rows, seed);
    }

    #[test]
    fn norms_are_those_of_plain_loops(rows in 1_usize..5, width in 1_usize..100, seed: u64) {
        let (x, weight) = (noise(seed, rows * width), noise(seed ^ 1, width));
        let eps = 1e-5;
        let expected: Vec<f64> = x.chunks(width).flat_map(|x| {
            let mean = x.iter().map(|x| f64::from(x * x)).sum::<f64>() / width as f64;
            let scale = (mean + f64::from(eps)).sqrt().recip();
            x.iter().zip(&weight).map(move |(x, weight)| f64::from(*x) * scale * f64::from(*weight)).collect::<Vec<_>>()
        }).collect();
        let found: Vec<Vec<f32>> = pools().iter().map(|pool| {
            let mut output = vec![0.0; x.len()];
            rms_norm(pool, &x, &weight, eps, &mut output);
            output
        }).collect();
        assert_close(&found[0], &expected, 1e-5);
        for other in &found[1..] {
            prop_assert_eq!(other, &found[0], "forms agree to the bit");
        }
    }
}

#[test]
fn extreme_values_neither_overflow_nor_poison_their_neighbours() {
    let inputs = 64;
    for pool in pools() {
        for (weight, value) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (3e4, 3e4), (0.0, 1.0), (1.0, 0.0)] {
            let matrix = Matrix::new(17, inputs, &vec![weight; 17 * inputs]);
            let found = product(&pool, &matrix, &vec![value; 9 * inputs], None, &[0.0; 9 * 17]);
            let expected = f64::from(weight) * f64::from(value) * inputs as f64;
            assert_close(&found, &vec![expected; 9 * 17], 1e-3);
        }
    }
}

#[test]
fn numbers_too_small_to_have_an_inverse_are_nothing_in_every_form() {
    let matrix = Matrix::new(5, 64, &noise(1, 5 * 64));
    for pool in pools() {
        for value in [1e-35, -1e-37, f32::MIN_POSITIVE] {
            assert_eq!(product(&pool, &matrix, &[value; 64], None, &[0.0; 5]), [0.0; 5]);
        }
    }
}

#[test]
fn a_row_with_one_that_is_no_number_is_none_and_harms_itself_alone() {
    let matrix = Matrix::new(5, 64, &noise(1, 5 * 64));
    a_bad_row_harms_itself_alone(&matrix);
}

pub(crate) fn a_bad_row_harms_itself_alone(matrix: &Matrix) {
    let (outputs, inputs) = (matrix.outputs(), matrix.inputs());
    for pool in pools() {
        for (bad, at) in [(f32::NAN, 0), (f32::NAN, 17), (f32::INFINITY, 31), (f32::NEG_INFINITY, 40)] {
            let mut x = noise(2, 2 * inputs);
            let alone = product(&pool, matrix, &x[inputs..], None, &vec![0.0; outputs]);
            x[at] = bad;
            let both = product(&pool, matrix, &x, None, &vec![0.0; 2 * outputs]);
            assert!(both[..outputs].iter().all(|value| value.is_nan()), "{bad} at {at}: {both:?}");
            assert_eq!(both[outputs..], alone, "{bad} at {at}");
        }
    }
}

#[test]
fn a_gate_that_is_far_closed_lets_nothing_through_and_one_far_open_all() {
    let inputs = 64;
    let up = Matrix::new(17, inputs, &vec![1.0; 17 * inputs]);
    for (weight, expected) in [(-1.0, 0.0), (-1.6, 0.0), (-30.0, 0.0), (2.0, 2.0 * 64.0 * 64.0)] {
        let gate = Matrix::new(17, inputs, &vec![weight; 17 * inputs]);
        for pool in pools() {
            let mut output = vec![1.0; 17];
            let rows = Rows::quantize(&pool, &vec![1.0; inputs], inputs);
            gated_product(&pool, &rows, &gate, &up, &mut output);
            assert_close(&output, &[expected; 17], 1e-3);
        }
    }
}

/// Rows of some 16 KiB: 70 are three blocks of rows, and all threads have pieces of each.
pub(crate) const WIDE: usize = 217 * GROUP;

pub(crate) fn a_long_prompt_is_cut_into_blocks_and_pieces_that_no_row_shows(matrix: &Matrix) {
    let outputs = matrix.outputs();
    assert_eq!(matrix.inputs(), WIDE);
    let x = noise(5, 70 * WIDE);
    for pool in pools() {
        let together = product(&pool, matrix, &x, None, &vec![0.0; 70 * outputs]);
        let mut gated = vec![0.0; 70 * outputs];
        gated_product(&pool, &Rows::quantize(&pool, &x, WIDE), matrix, matrix, &mut gated);
        for row in [0, 31, 32, 33, 63, 64, 69] {
            let (x, columns) = (&x[row * WIDE..(row + 1) * WIDE], row * outputs..(row + 1) * outputs);
            assert_eq!(
                product(&pool, matrix, x, None, &vec![0.0; outputs]),
                together[columns.clone()],
                "{row}"
            );
            let mut alone = vec![0.0; outputs];
            gated_product(&pool, &Rows::quantize(&pool, x, WIDE), matrix, matrix, &mut alone);
            assert_eq!(alone, gated[columns], "{row}");
        }
    }
}

#[test]
fn a_long_prompt_is_computed_as_each_row_alone() {
    a_long_prompt_is_cut_into_blocks_and_pieces_that_no_row_shows(&Matrix::new(
        70,
        WIDE,
        &noise(6, 70 * WIDE),
    ));
}

#[test]
fn nothing_of_no_rows_is_nothing() {
    for pool in pools() {
        let matrix = Matrix::new(5, 40, &noise(1, 200));
        assert!(product(&pool, &matrix, &[], None, &[]).is_empty());
    }
}

struct Exp<'a>(&'a mut [[f32; LANES]]);

impl Work for Exp<'_> {
    fn run<S: Simd>(self, simd: S) {
        for lanes in self.0 {
            simd.store(simd.exp(simd.load(lanes)), lanes);
        }
    }
}

#[test]
fn the_exponential_is_within_two_units_in_the_last_place() {
    let inputs: Vec<f32> = (-87_000..=88_000).map(|thousandth| thousandth as f32 / 1000.0).collect();
    let mut first = None;
    for form in Form::all() {
        let mut lanes = inputs.as_chunks::<LANES>().0.to_vec();
        form.run(Exp(&mut lanes));
        for (found, input) in lanes.as_flattened().iter().zip(&inputs) {
            let expected = f64::from(*input).exp();
            assert!(
                (f64::from(*found) / expected - 1.0).abs() < 2.5e-7,
                "e^{input} is {expected}, not {found}"
            );
        }
        assert_eq!(first.get_or_insert_with(|| lanes.clone()), &lanes, "forms agree to the bit");
    }
}
