//! The steps of an engine in this process, as it reports them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::profile::{Model, StepSample, StepShape};
use engine::{Observer, StepReport};

use crate::roofline::Work;

/// One step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) ended: Instant,
    pub(crate) sample: StepSample,
}

impl Step {
    /// Whether it computed one token for each of so many streams and nothing else.
    pub(crate) fn is_decode(&self, streams: usize) -> bool {
        self.sample.runs.len() == streams
            && self.sample.runs.iter().all(|(new, before)| *new == 1 && *before > 0)
    }

    fn started(&self) -> Instant {
        self.ended.checked_sub(Duration::from_secs_f64(self.sample.seconds)).unwrap_or(self.ended)
    }
}

/// The steps since they were last taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Arc<Mutex<Vec<Step>>>);

impl Steps {
    pub(crate) fn observer(&self) -> Observer {
        let steps = self.clone();
        Box::new(move |report: &StepReport<'_>| {
            let runs = &report.plan.sequences;
            let sample = StepSample {
                seconds: report.duration.as_secs_f64(),
                runs: runs.iter().map(|run| (run.num_tokens(), run.start)).collect(),
                num_draft_tokens: runs.iter().map(|run| run.num_drafts).sum(),
            };
            steps.lock().push(Step { ended: Instant::now(), sample });
        })
    }

    /// New tokens of all of them.
    pub(crate) fn num_tokens(&self) -> usize {
        self.lock().iter().flat_map(|step| &step.sample.runs).map(|(new, _)| new).sum()
    }

    pub(crate) fn take(&self) -> Vec<Step> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Step>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stretch of steps amounts to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stretch {
    /// New tokens.
    pub(crate) tokens: usize,
    /// From the first step's start to the last one's end.
    pub(crate) seconds: f64,
    pub(crate) step_s: Vec<f64>,
    pub(crate) work: Work,
}

impl Stretch {
    pub(crate) fn of(model: &Model, steps: &[Step]) -> Self {
        let mut stretch = Self::default();
        for step in steps {
            let shape: StepShape = step.sample.runs.iter().copied().collect();
            stretch.tokens += shape.num_tokens as usize;
            stretch.step_s.push(step.sample.seconds);
            stretch.work += Work::of(model, &shape);
        }
        if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
            stretch.seconds = last.ended.saturating_duration_since(first.started()).as_secs_f64();
        }
        stretch
    }

    pub(crate) fn tokens_per_s(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at_ms: u64, since: Instant, runs: &[(usize, usize)]) -> Step {
        let ended = since + Duration::from_millis(at_ms);
        Step { ended, sample: StepSample { seconds: 0.010, runs: runs.to_vec(), num_draft_tokens: 0 } }
    }

    #[test]
    fn a_decode_is_a_step_of_one_token_for_each_stream() {
        let now = Instant::now();
        assert!(step(0, now, &[(1, 5), (1, 9)]).is_decode(2));
        assert!(!step(0, now, &[(1, 5), (1, 9)]).is_decode(3), "a stream is missing");
        assert!(!step(0, now, &[(1, 5), (7, 0)]).is_decode(2), "a prompt");
        assert!(!step(0, now, &[(1, 5), (1, 0)]).is_decode(2), "a prompt of one token");
    }

    #[test]
    fn a_stretch_is_timed_from_the_first_steps_start_with_what_lies_between_steps() {
        let now = Instant::now() + Duration::from_secs(1);
        let model = engine::profile::shipped("cpu-smollm2-135m").expect("shipped").model;
        let steps = [step(10, now, &[(1, 5), (1, 6)]), step(40, now, &[(1, 6), (1, 7)])];
        let stretch = Stretch::of(&model, &steps);
        assert_eq!((stretch.tokens, stretch.step_s.len()), (4, 2));
        assert!((stretch.seconds - 0.040).abs() < 1e-6 && (stretch.tokens_per_s() - 100.0).abs() < 0.1);
        assert!(stretch.work.bytes > 2.0 * model.weight_bytes as f64);
    }
}
