use candle_core::Tensor;
use engine::model::dtype_name;

use super::*;

/// Rows of 512 (a multiple of every block), of 64 (of 32 only) and of 20 (of none), a norm, a router, and a declared
/// alignment that is not the default.
struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Self { dir };
        let tensors = [
            ("token_embd.weight", floats(&[8, 512]), GgmlDType::Q4_1),
            ("blk.0.attn_norm.weight", floats(&[512]), GgmlDType::F16),
            ("blk.0.attn_q.weight", floats(&[4, 512]), GgmlDType::F32),
            ("blk.0.ffn_down.weight", floats(&[4, 64]), GgmlDType::F16),
            ("blk.0.ffn_odd.weight", floats(&[4, 20]), GgmlDType::F32),
            ("blk.0.ffn_gate_inp.weight", floats(&[4, 512]), GgmlDType::F32),
        ]
        .map(|(name, tensor, dtype)| (name, QTensor::quantize(&tensor, dtype).unwrap()));
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        // candle writes at 32, so one of two fillers has the tensors begin at 64.
        for filler in [0, 32] {
            fixture.write(filler, &tensors);
            // Otherwise a reader looks 32 bytes too far, and the last tensor ends beyond the file.
            if open(&fixture.input()).is_ok() {
                return fixture;
            }
        }
        panic!("no filler gives the alignment");
    }

    fn write(&self, filler: usize, tensors: &[(&str, &QTensor)]) {
        let metadata = [
            ("general.architecture", Value::String("llama".into())),
            ("general.description", Value::String("x".repeat(filler))),
            ("general.file_type", Value::U32(3)),
            ("general.alignment", Value::U32(64)),
            (
                "tokenizer.ggml.tokens",
                Value::Array(vec![Value::String("a".into()), Value::String("b".into())]),
            ),
        ];
        let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
        let mut file = File::create(self.input()).unwrap();
        gguf_file::write(&mut file, &metadata, tensors).unwrap();
    }

    fn input(&self) -> PathBuf {
        self.dir.path().join("in.gguf")
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("out.gguf")
    }

    fn quantize(&self, to: GgmlDType) -> Result<QuantizeReport, QuantizeError> {
        quantize(&self.input(), &self.output(), to, &QuantizeOptions::default(), |_| {})
    }

    fn files(&self) -> usize {
        fs::read_dir(self.dir.path()).unwrap().count()
    }
}

/// Values in [-1, 1) without a pattern that a block would like.
fn floats(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 2003) as f32 / 1001.5 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn read(path: &Path, name: &str) -> (GgmlDType, Vec<f32>) {
    let (content, mut reader, _) = open(path).unwrap();
    let tensor = content.tensor(&mut reader, name, &Device::Cpu).unwrap();
    let values = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    (tensor.dtype(), values)
}

fn error_max(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_name_is_read_back_and_an_unknown_one_lists_them() {
    for (name, dtype) in DTYPES {
        assert_eq!(parse_dtype(&name.to_uppercase()).unwrap(), dtype);
        assert_eq!(dtype_name(dtype), name);
    }
    let message = parse_dtype("int8").unwrap_err().to_string();
    assert!(message.contains("int8") && message.contains("q8_0") && message.contains("q4_k"), "{message}");
    assert!(parse_dtype("q8_1").is_err());
}

#[test]
fn matrices_take_the_wanted_type_and_vectors_f32() {
    let fixture = Fixture::new();
    let report = fixture.quantize(GgmlDType::Q8_0).unwrap();
    for (name, dtype, error_bound) in [
        ("token_embd.weight", GgmlDType::Q8_0, 0.005),
        ("blk.0.attn_q.weight", GgmlDType::Q8_0, 0.005),
        ("blk.0.ffn_down.weight", GgmlDType::Q8_0, 0.005),
        ("blk.0.attn_norm.weight", GgmlDType::F32, 0.0),
        ("blk.0.ffn_gate_inp.weight", GgmlDType::F32, 0.0),
    ] {
        let (found, values) = read(&fixture.output(), name);
        let (_, before) = read(&fixture.input(), name);
        assert_eq!(found, dtype, "{name}");
        assert!(error_max(&values, &before) <= error_bound, "{name}");
    }
    assert_eq!(report.output_bytes, fs::metadata(fixture.output()).unwrap().len());
    assert_eq!(report.input_bytes, fs::metadata(fixture.input()).unwrap().len());
}

#[test]
fn rows_that_do_not_fit_fall_back_and_are_reported() {
    let fixture = Fixture::new();
    let report = fixture.quantize(GgmlDType::Q4K).unwrap();
    let fallbacks: Vec<_> =
        report.fallbacks().map(|tensor| (tensor.name.as_str(), tensor.to, tensor.fell_back_from)).collect();
    assert_eq!(
        fallbacks,
        [
            ("blk.0.ffn_down.weight", GgmlDType::Q8_0, Some(GgmlDType::Q4K)),
            ("blk.0.ffn_odd.weight", GgmlDType::F16, Some(GgmlDType::Q4K)),
        ]
    );
    let (dtype, values) = read(&fixture.output(), "blk.0.attn_q.weight");
    assert_eq!(dtype, GgmlDType::Q4K);
    assert!(error_max(&values, &read(&fixture.input(), "blk.0.attn_q.weight").1) < 0.15);
}

#[test]
fn a_tensor_that_has_the_wanted_type_is_copied_bit_by_bit() {
    let fixture = Fixture::new();
    fixture.quantize(GgmlDType::Q4_1).unwrap();
    let before = read(&fixture.input(), "token_embd.weight");
    assert_eq!(read(&fixture.output(), "token_embd.weight"), before);
}

#[test]
fn metadata_is_kept_but_for_what_the_type_changes() {
    let fixture = Fixture::new();
    fixture.quantize(GgmlDType::Q8_0).unwrap();
    let (content, ..) = open(&fixture.output()).unwrap();
    let get = |key: &str| content.metadata.get(key);
    assert_eq!(get("general.architecture").unwrap().to_string().unwrap(), "llama");
    assert_eq!(get("tokenizer.ggml.tokens").unwrap().to_vec().unwrap().len(), 2);
    assert_eq!(get("general.file_type").unwrap().to_u32().unwrap(), 7);
    assert_eq!(get("general.quantization_version").unwrap().to_u32().unwrap(), 2);
    assert!(get("general.alignment").is_none());
}

#[test]
fn equal_inputs_give_equal_files_with_tensors_in_the_inputs_order() {
    let (one, other) = (Fixture::new(), Fixture::new());
    let report = one.quantize(GgmlDType::Q8_0).unwrap();
    other.quantize(GgmlDType::Q8_0).unwrap();
    assert_eq!(fs::read(one.output()).unwrap(), fs::read(other.output()).unwrap());
    assert_eq!(report.tensors[0].name, "token_embd.weight");
    assert_eq!(report.tensors[5].name, "blk.0.ffn_gate_inp.weight");
}

#[test]
fn progress_counts_every_tensor() {
    let fixture = Fixture::new();
    let mut heard = Vec::new();
    let report = quantize(
        &fixture.input(),
        &fixture.output(),
        GgmlDType::Q8_0,
        &QuantizeOptions::default(),
        |progress| {
            heard.push((progress.tensor.name.clone(), progress.tensors_done, progress.tensors_total));
        },
    )
    .unwrap();
    let expected: Vec<_> =
        report.tensors.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i + 1, 6)).collect();
    assert_eq!(heard, expected);
}

#[test]
fn an_output_that_exists_is_replaced_only_by_force() {
    let fixture = Fixture::new();
    fs::write(fixture.output(), "precious").unwrap();
    assert!(matches!(fixture.quantize(GgmlDType::Q8_0), Err(QuantizeError::OutputExists { .. })));
    assert_eq!(fs::read(fixture.output()).unwrap(), b"precious");
    let options = QuantizeOptions { force: true };
    quantize(&fixture.input(), &fixture.output(), GgmlDType::Q8_0, &options, |_| {}).unwrap();
    assert_eq!(read(&fixture.output(), "token_embd.weight").0, GgmlDType::Q8_0);
    assert_eq!(fixture.files(), 2);
}

#[test]
fn the_input_is_never_replaced() {
    let fixture = Fixture::new();
    let options = QuantizeOptions { force: true };
    let outcome = quantize(&fixture.input(), &fixture.input(), GgmlDType::Q8_0, &options, |_| {});
    assert!(matches!(outcome, Err(QuantizeError::OutputIsInput { .. })));
    assert_eq!(read(&fixture.input(), "token_embd.weight").0, GgmlDType::Q4_1);
}

#[test]
fn a_directory_and_a_file_of_another_kind_are_refused_and_leave_nothing() {
    let fixture = Fixture::new();
    let directory =
        quantize(fixture.dir.path(), &fixture.output(), GgmlDType::Q8_0, &QuantizeOptions::default(), |_| {})
            .unwrap_err();
    assert!(directory.to_string().contains("safetensors"), "{directory}");
    fs::write(fixture.input(), "<html>").unwrap();
    assert!(matches!(fixture.quantize(GgmlDType::Q8_0), Err(QuantizeError::NotGguf { .. })));
    assert_eq!(fixture.files(), 1);
}

#[test]
fn a_truncated_input_names_its_tensor_and_leaves_nothing() {
    let fixture = Fixture::new();
    let bytes = fs::read(fixture.input()).unwrap();
    fs::write(fixture.input(), &bytes[..bytes.len() - 3_000]).unwrap();
    let error = fixture.quantize(GgmlDType::Q8_0).unwrap_err();
    assert!(matches!(&error, QuantizeError::NotGguf { .. }), "{error}");
    assert!(error.to_string().contains("blk.0."), "{error}");
    assert_eq!(fixture.files(), 1);
}
