//! The whole of a measurement in this process, on a tiny model.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bench::{Bound, Error, Options, Part, Report};
use engine::profile::{StepLog, fit_steps};
use tiny_model::Shape;
use tokio_util::sync::CancellationToken;

fn options(model: PathBuf) -> Options {
    Options {
        program: "absent".into(),
        cache_dir: "absent".into(),
        model,
        model_name: "tiny".into(),
        threads: 2,
        parts: vec![Part::Roofline],
        with_peer: false,
        repeats: 2,
        pairs: 1,
        streams: vec![1, 3],
        prompt_tokens: 48,
        answer_tokens: 12,
        fit: Some("mine".into()),
    }
}

async fn measure(
    change: impl FnOnce(&mut Options),
    stop: &CancellationToken,
) -> (Result<Report, Error>, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    tiny_model::write(&path, &Shape::default()).expect("writes");
    let mut options = options(path);
    change(&mut options);
    let said = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&said);
    let progress: bench::Progress = Arc::new(move |what: &str| {
        hears.lock().expect("unpoisoned").push(what.to_owned());
    });
    let report = bench::run(options, progress, stop.clone()).await;
    let said = said.lock().expect("unpoisoned").clone();
    (report, said)
}

#[tokio::test]
async fn prefill_and_decode_are_laid_beside_peaks_of_the_same_run_and_a_profile_is_fitted_to_their_steps() {
    let (report, said) = measure(|_| {}, &CancellationToken::new()).await;
    let report = report.expect("measured");
    let peaks = report.peaks.expect("peaks");
    assert_eq!(peaks.threads, 2);
    assert!(
        (peaks.byte_products_per_s / peaks.multiply_adds_per_s - 2.0).abs() < 1e-9,
        "two-byte activations"
    );
    assert!(peaks.float_multiply_adds_per_s > 0.0 && peaks.bytes_per_s > 0.0);

    let found: Vec<_> = report.engine.iter().map(|point| (point.phase, point.streams)).collect();
    assert_eq!(found, [("prefill", 1), ("decode", 1), ("decode", 3)]);
    for point in &report.engine {
        assert!(point.tokens_per_s > 0.0 && point.step_ms > 0.0, "{point:?}");
        let larger = point.share_of_multiply_adds.max(point.share_of_bytes);
        assert!((point.share_of_bound - larger).abs() < 1e-9, "{point:?}");
        let by_bound = match point.bound {
            Bound::Arithmetic => point.share_of_multiply_adds,
            Bound::Memory => point.share_of_bytes,
        };
        assert!((by_bound - larger).abs() < 1e-9, "{point:?}");
    }

    let profile = report.profile.expect("a profile");
    assert_eq!((profile.name.as_str(), profile.model.name.as_str()), ("mine", "tiny, 8.7 bits a weight"));
    assert!(profile.steps.is_some_and(|steps| steps.count > 50));
    let log = StepLog::parse(&report.step_log.expect("a log")).expect("reads back");
    assert_eq!(fit_steps("mine", &log).expect("enough"), profile, "it follows from the log");
    assert!(said.iter().any(|what| what == "decode, 3 streams"), "{said:?}");
}

#[tokio::test]
async fn what_the_model_cannot_take_is_refused_with_the_flags_to_change() {
    let (refused, _) = measure(|options| options.prompt_tokens = 5000, &CancellationToken::new()).await;
    let error = refused.expect_err("too long").to_string();
    assert!(error.contains("context is 1024") && error.contains("--prompt-tokens"), "{error}");
    for change in [
        |options: &mut Options| options.repeats = 0,
        |options: &mut Options| options.streams = vec![0],
        |options: &mut Options| options.answer_tokens = 1,
    ] {
        let (refused, said) = measure(change, &CancellationToken::new()).await;
        assert!(matches!(refused, Err(Error::Options(_))) && said.is_empty(), "before any work");
    }
}

#[tokio::test]
async fn one_that_is_asked_to_end_reports_nothing() {
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(matches!(measure(|_| {}, &stop).await.0, Err(Error::Interrupted)));
}
