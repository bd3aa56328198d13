//! An engine at maximum load, planned by the real scheduler.

use scheduler::{Scheduler, SequenceId, SequenceSpec};

use crate::{Limits, Profile, StepShape};

/// Requests that are all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Length of each prompt.
    pub prompt_tokens: usize,
    /// Length of each answer.
    pub answer_tokens: usize,
}

/// The steps of a closed loop in its steady state: as many requests as memory holds, each followed by the next.
///
/// In a closed loop without think time the steps don't depend on how long they take. So they are planned once, and a
/// fit only prices them again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SteadyLoad {
    /// Requests in flight.
    pub num_users: usize,
    /// The steps of the time in which each user gets one answer, on average.
    pub steps: Vec<StepShape>,
    /// Tokens sampled in them.
    pub output_tokens: u64,
}

/// Few blocks, since nothing here depends on how finely memory is cut.
const BLOCK_SIZE: usize = 64;

impl SteadyLoad {
    /// Runs the scheduler under these limits. None if not one request fits.
    pub fn run(limits: &Limits, workload: Workload) -> Option<Self> {
        let Workload { prompt_tokens, answer_tokens } = workload;
        let num_blocks = limits.kv_cache_tokens / BLOCK_SIZE;
        let num_users =
            (num_blocks / (prompt_tokens + answer_tokens).div_ceil(BLOCK_SIZE)).min(limits.max_num_seqs);
        let config = scheduler::Config {
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            max_num_waiting: num_users.max(1),
            block_size: BLOCK_SIZE,
            num_blocks,
            prefix_caching: false,
            ..scheduler::Config::default()
        };
        let mut users = Users { scheduler: Scheduler::new(config).ok()?, prompt_tokens, left: Vec::new() };
        // The first answers have all lengths, so that later ones end at all times and not all at once.
        for user in 0..num_users {
            users.ask((answer_tokens * (user + 1)).div_ceil(num_users))?;
        }
        let mut load = Self { num_users, steps: Vec::new(), output_tokens: 0 };
        let mut num_ended = 0;
        while num_users > 0 && num_ended < 2 * num_users {
            let (shape, sampled, ended) = users.step();
            // The first round fills the engine; the second is its steady state.
            if num_ended >= num_users {
                load.steps.push(shape);
                load.output_tokens += sampled;
            }
            num_ended += ended;
            (0..ended).try_for_each(|_| users.ask(answer_tokens))?;
        }
        (num_users > 0).then_some(load)
    }

    /// Tokens sampled a second if steps take as long as a profile says.
    pub fn output_tokens_per_s(&self, profile: &Profile) -> f64 {
        let total_us: f64 = self.steps.iter().map(|step| profile.step_time_us(step)).sum();
        self.output_tokens as f64 / total_us * 1e6
    }
}

/// The requests in flight.
struct Users {
    scheduler: Scheduler,
    prompt_tokens: usize,
    /// Tokens still to come, by sequence.
    left: Vec<usize>,
}

impl Users {
    fn ask(&mut self, max_tokens: usize) -> Option<()> {
        let id = SequenceId(self.left.len() as u64);
        self.left.push(max_tokens);
        let tokens = vec![0; self.prompt_tokens];
        let spec =
            SequenceSpec { id, tokens, max_tokens, priority: 0, salt: String::new(), prompt_logprobs: false };
        self.scheduler.add(spec).ok()
    }

    /// One step: its shape, tokens sampled, answers ended.
    fn step(&mut self) -> (StepShape, u64, usize) {
        let plan = self.scheduler.schedule();
        let runs = plan.sequences.iter();
        let shape = runs.clone().map(|run| (run.num_tokens(), run.start)).collect();
        let sampled: Vec<_> = runs.filter(|run| run.sample).map(|run| (run.id, 0)).collect();
        self.scheduler.commit(plan.step, &sampled);
        let mut ended = 0;
        for (id, _) in &sampled {
            let left = &mut self.left[id.0 as usize];
            *left -= 1;
            if *left == 0 {
                self.scheduler.remove(*id);
                ended += 1;
            }
        }
        (shape, sampled.len() as u64, ended)
    }
}
