//! Products, plain and gated, are what plain loops make of the numbers that quantizing leaves, whatever the shape, and
//! nothing is read or written beyond what was given.

#![no_main]

use fuzz::numbers::{Numbers, assert_close};
use half::f16;
use kernels::{FourBits, GROUP, Matrix, Pool, Product, Rows, gated_product, products};
use libfuzzer_sys::fuzz_target;

/// The largest quantized activation: two bytes within ±127, the first of which counts 255.
const VALUE_MAX: f32 = 127.0 * 255.0 + 127.0;

fuzz_target!(|input: ([u8; 4], Vec<u8>)| {
    let ([num_rows, outputs, inputs, flags], bytes) = input;
    let (num_rows, outputs, inputs) =
        (usize::from(num_rows) % 24, usize::from(outputs) % 80 + 1, usize::from(inputs) + 1);
    let (add, with_bias, threads) = (flags & 1 == 1, flags & 2 == 2, usize::from(flags / 4 % 3) + 1);
    let four_bits = flags & 16 == 16;
    let inputs = if four_bits { inputs.next_multiple_of(GROUP) } else { inputs };
    let mut numbers = Numbers::new(bytes);
    let pool = Pool::new(threads);
    let one = Matrix::new(outputs, inputs, &numbers.take(outputs * inputs));
    let other = if four_bits {
        let groups: Vec<FourBits> = (0..outputs * inputs / GROUP).map(|_| group(&mut numbers)).collect();
        Matrix::of_four_bits(outputs, inputs, &groups)
    } else {
        Matrix::new(outputs, inputs, &numbers.take(outputs * inputs))
    };
    let x = numbers.take(num_rows * inputs);
    let bias = with_bias.then(|| numbers.take(outputs));
    let before = numbers.take(num_rows * outputs);

    let rows = Rows::quantize(&pool, &x, inputs);
    let [expected_one, expected_other] = [&one, &other].map(|matrix| plain(&rounded(&x, inputs), matrix));
    let mut found = [before.clone(), before.clone()];
    let [found_one, found_other] = &mut found;
    let mut work = [
        Product { matrix: &one, bias: bias.as_deref(), output: found_one, add },
        Product { matrix: &other, bias: None, output: found_other, add: false },
    ];
    products(&pool, &rows, &mut work);
    let with_rest = |(index, sum): (usize, &f64)| {
        let bias = bias.as_ref().map_or(0.0, |bias| bias[index % outputs]);
        sum + f64::from(bias) + if add { f64::from(before[index]) } else { 0.0 }
    };
    let expected: Vec<f64> = expected_one.iter().enumerate().map(with_rest).collect();
    assert_close(&found[0], &expected, 1e-3);
    assert_close(&found[1], &expected_other, 1e-3);

    let mut gated = before;
    gated_product(&pool, &rows, &one, &other, &mut gated);
    let silu = |gate: f64| gate / (1.0 + (-gate).exp());
    let expected: Vec<f64> =
        expected_one.iter().zip(&expected_other).map(|(gate, up)| silu(*gate) * up).collect();
    assert_close(&gated, &expected, 1e-2);
});

fn group(numbers: &mut Numbers) -> FourBits {
    let numbers = numbers.take(2 + GROUP / 2);
    FourBits {
        scale: f16::from_f32(numbers[0] / 8.0),
        minimum: f16::from_f32(numbers[1]),
        nibbles: std::array::from_fn(|index| ((numbers[2 + index] + 4.0) * 31.0) as u8),
    }
}

fn plain(x: &[f32], matrix: &Matrix) -> Vec<f64> {
    let inputs = matrix.inputs();
    let mut row = vec![0.0; inputs];
    let mut output = Vec::new();
    for x in x.chunks_exact(inputs) {
        for index in 0..matrix.outputs() {
            matrix.row(index, &mut row);
            output.push(x.iter().zip(&row).map(|(x, weight)| f64::from(*x) * f64::from(*weight)).sum());
        }
    }
    output
}

/// What is left of `values` when each group is rounded as activations are.
fn rounded(values: &[f32], width: usize) -> Vec<f32> {
    let group = |group: &[f32]| {
        let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest > 0.0 { VALUE_MAX / largest } else { 0.0 };
        let round = |value: &f32| (value * inverse).round_ties_even() * (largest / VALUE_MAX);
        group.iter().map(round).collect::<Vec<_>>()
    };
    values.chunks(width).flat_map(|row| row.chunks(GROUP)).flat_map(group).collect()
}
