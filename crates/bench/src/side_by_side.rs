//! Our worker beside llama.cpp's server: the same file, threads and prompts, in turns.

use std::path::{Path, PathBuf};

use quantize::{QuantizeOptions, parse_dtype, quantize};
use tokio_util::sync::CancellationToken;

use crate::load::{Load, Run};
use crate::report::{Figure, Ratio};
use crate::servers::{Running, Settings, Side, Spinner};
use crate::{Error, Options, Part, Progress, median, python};

/// Streams of the decode, and what their figures are called.
const STREAMS: [(u32, &str, &str); 3] = [
    (1, "decode_1", "decode, 1 stream"),
    (8, "decode_8", "decode, 8 streams"),
    (32, "decode_32", "decode, 32 streams"),
];
/// Requests at once that a server is started for, and the room of each.
const SLOTS: usize = 32;
const TOKENS_PER_SLOT: usize = 1024;
/// The same where memory is measured: 8,192 tokens in all.
const SLOTS_OF_MEMORY: usize = 8;

/// A long prompt, three times.
const PREFILL: Load =
    Load { users: 1, requests: 3, prompt_tokens: 512, shared_prefix_tokens: 0, answer_tokens: 1 };
/// Prompts and answers as they come: two for each of eight clients.
const HTTP: Load =
    Load { users: 8, requests: 16, prompt_tokens: 90, shared_prefix_tokens: 0, answer_tokens: 64 };
/// A prefix that nobody has seen, and then three times again with other words behind it.
const PREFIX: Load =
    Load { users: 1, requests: 4, prompt_tokens: 1016, shared_prefix_tokens: 1000, answer_tokens: 1 };

/// A short prompt and a long answer for each stream.
const fn decode(streams: u32) -> Load {
    let (requests, answer_tokens) = (streams as u64, 96);
    Load { users: streams, requests, prompt_tokens: 16, shared_prefix_tokens: 0, answer_tokens }
}

/// Measures the parts that need servers.
pub(crate) async fn measure(
    options: &Options,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Vec<Figure>, Error> {
    let dir = tempfile::tempdir().map_err(Error::file(&std::env::temp_dir()))?;
    let mut sides = vec![Side::Ours { program: options.program.clone() }];
    let mut model = options.model.clone();
    if options.with_peer {
        let making = python::environment(&options.cache_dir, progress);
        let python = stop.run_until_cancelled(making).await.ok_or(Error::Interrupted)??;
        sides.push(Side::LlamaCpp { python });
        progress("quantizing the model to Q8_0");
        model = q8_0(&options.model, dir.path()).await?;
    }
    let (slots, threads) = (SLOTS, options.threads);
    let settings = Settings { model, threads, slots, kv_tokens: SLOTS * TOKENS_PER_SLOT };
    let mut bench = Bench { options, progress, stop, dir: dir.path(), sides, settings, seed: 0 };
    let mut figures = bench.rates().await?;
    figures.extend(bench.beginnings().await?);
    Ok(figures)
}

/// The type that both sides run best; its quality is that of the file that it comes from.
async fn q8_0(model: &Path, dir: &Path) -> Result<PathBuf, Error> {
    let (from, to) = (model.to_owned(), dir.join("model.Q8_0.gguf"));
    let quantizing = tokio::task::spawn_blocking(move || {
        quantize(&from, &to, parse_dtype("q8_0")?, &QuantizeOptions::default(), |_| {})?;
        Ok(to)
    });
    quantizing.await.map_err(|_| Error::broken("quantizing the model panicked"))?
}

struct Bench<'a> {
    options: &'a Options,
    progress: &'a Progress,
    stop: &'a CancellationToken,
    dir: &'a Path,
    /// Ours, and the peer's if there is one.
    sides: Vec<Side>,
    settings: Settings,
    seed: u64,
}

/// What is measured in all runs of one side, and the same of the other.
type Sides = [Vec<f64>; 2];

/// A figure of a run.
type Read = fn(&Run) -> Result<f64, Error>;

impl Bench<'_> {
    fn wants(&self, part: Part) -> bool {
        self.options.parts.contains(&part)
    }

    /// Everything that is measured while all servers run.
    async fn rates(&mut self) -> Result<Vec<Figure>, Error> {
        let parts = [Part::Prefill, Part::Decode, Part::Http, Part::Contended, Part::Prefix];
        if !parts.into_iter().any(|part| self.wants(part)) {
            return Ok(Vec::new());
        }
        (self.progress)("starting servers");
        let mut servers = Vec::new();
        for side in &self.sides {
            servers.push(side.start(&self.settings, self.stop).await?);
        }
        for server in &servers {
            // What is allocated at the first step is no part of a later one.
            decode(8).run(server.address(), u64::MAX, &self.dir.join("warm-up"), self.stop).await?;
        }
        let mut figures = Vec::new();
        if self.wants(Part::Prefill) {
            let [rates, times] =
                self.pairs("prefill", &servers, PREFILL, [Run::prefill_tokens_per_s, Run::ttft_ms]).await?;
            figures.push(more("prefill", "prefill, 512-token prompt", "tokens/s", &rates));
            figures.push(less("prefill_ttft", "time to first token, 512-token prompt", "ms", &times));
        }
        if self.wants(Part::Decode) {
            for (streams, id, name) in STREAMS {
                let rates = self.pairs(name, &servers, decode(streams), [Run::decode_tokens_per_s]).await?;
                figures.push(more(id, name, "tokens/s", &rates[0]));
            }
        }
        if self.wants(Part::Http) {
            let [rates] = self.pairs("HTTP", &servers, HTTP, [|run| Ok(run.output_tokens_per_s)]).await?;
            figures.push(more("http_8", "HTTP, 8 clients, 90 tokens in, 64 out", "tokens/s", &rates));
        }
        if self.wants(Part::Contended) {
            let _spinner = Spinner::start(&self.options.program)?;
            let [rates] = self.pairs("a busy core", &servers, decode(8), [Run::decode_tokens_per_s]).await?;
            figures.push(more("contended_8", "decode, 8 streams, a core kept busy", "tokens/s", &rates));
        }
        if self.wants(Part::Prefix) {
            figures.push(self.prefix(&servers[0]).await?);
        }
        for server in servers {
            server.end().await;
        }
        Ok(figures)
    }

    /// Runs one load in turns, and reads some figures of each run.
    async fn pairs<const N: usize>(
        &mut self,
        what: &str,
        servers: &[Running],
        load: Load,
        read: [Read; N],
    ) -> Result<[Sides; N], Error> {
        let mut found: [Sides; N] = std::array::from_fn(|_| Sides::default());
        for pair in 1..=self.options.pairs {
            (self.progress)(&format!("{what}, {pair} of {}", self.options.pairs));
            self.seed += 1;
            let mut prompt_tokens = Vec::new();
            for (side, server) in servers.iter().enumerate() {
                let dir = self.dir.join(format!("run-{}-{side}", self.seed));
                let run = load.run(server.address(), self.seed, &dir, self.stop).await?;
                for (found, read) in found.iter_mut().zip(read) {
                    found[side].push(read(&run)?);
                }
                prompt_tokens.push(run.prompt_tokens);
            }
            check_prompts(&prompt_tokens)?;
        }
        Ok(found)
    }

    /// Ours alone: warm beside cold.
    async fn prefix(&mut self, ours: &Running) -> Result<Figure, Error> {
        let mut found = Sides::default();
        for pair in 1..=self.options.pairs {
            (self.progress)(&format!("a prefix that comes again, {pair} of {}", self.options.pairs));
            self.seed += 1;
            let dir = self.dir.join(format!("run-{}", self.seed));
            let run = PREFIX.run(ours.address(), self.seed, &dir, self.stop).await?;
            let (cold, warm) = run.first_and_later_ttft_ms()?;
            found[0].push(warm);
            found[1].push(cold);
        }
        let name = "time to first token, 1,000-token prefix again; cold beside it";
        Ok(less("prefix_ttft", name, "ms", &found))
    }

    /// What needs servers that have just been started, with room for 8,192 tokens.
    async fn beginnings(&mut self) -> Result<Vec<Figure>, Error> {
        let wanted = [Part::Memory, Part::Start].map(|part| self.wants(part));
        if wanted == [false; 2] {
            return Ok(Vec::new());
        }
        let settings = Settings {
            slots: SLOTS_OF_MEMORY,
            kv_tokens: SLOTS_OF_MEMORY * TOKENS_PER_SLOT,
            ..self.settings.clone()
        };
        let [mut resident, mut most, mut ready] = [const { [const { Vec::new() }; 2] }; 3];
        for pair in 1..=self.options.pairs {
            (self.progress)(&format!("start and memory, {pair} of {}", self.options.pairs));
            self.seed += 1;
            for (at, side) in self.sides.iter().enumerate() {
                let server = side.start(&settings, self.stop).await?;
                ready[at].push(server.ready_s);
                if wanted[0] {
                    let dir = self.dir.join(format!("run-{}-{at}", self.seed));
                    HTTP.run(server.address(), self.seed, &dir, self.stop).await?;
                    let (now_mib, most_mib) = server.resident_mib()?;
                    resident[at].push(now_mib);
                    most[at].push(most_mib);
                }
                server.end().await;
            }
        }
        let mut figures = Vec::new();
        if wanted[0] {
            figures.push(less("resident", "resident, room for 8,192 tokens", "MiB", &resident));
            figures.push(less("most_resident", "most resident, loading included", "MiB", &most));
        }
        if wanted[1] {
            figures.push(less("ready", "start to ready", "s", &ready));
        }
        Ok(figures)
    }
}

/// Sides that count a prompt's tokens differently were not asked the same.
fn check_prompts(tokens: &[f64]) -> Result<(), Error> {
    match tokens {
        [ours, theirs] if (ours / theirs - 1.0).abs() > 0.05 => Err(Error::broken(format!(
            "the same prompts have {ours:.0} tokens on our side and {theirs:.0} on the peer's: they are not the same work"
        ))),
        _ => Ok(()),
    }
}

fn more(id: &'static str, name: &'static str, unit: &'static str, sides: &Sides) -> Figure {
    let [ours, other] = sides;
    Figure {
        id,
        name,
        unit,
        more_is_better: true,
        ours: median(ours),
        other: (!other.is_empty()).then(|| median(other)),
        ratio: Ratio::of(ours, other),
        runs: ours.len(),
    }
}

fn less(id: &'static str, name: &'static str, unit: &'static str, sides: &Sides) -> Figure {
    Figure { more_is_better: false, ..more(id, name, unit, sides) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_that_are_not_the_same_work_are_refused() {
        assert!(check_prompts(&[540.0, 541.0]).is_ok() && check_prompts(&[540.0]).is_ok());
        let error = check_prompts(&[540.0, 700.0]).expect_err("differ").to_string();
        assert!(error.contains("540 tokens on our side and 700"), "{error}");
    }

    #[test]
    fn every_stream_of_a_decode_has_one_request_and_all_fit_the_slots() {
        for (streams, ..) in STREAMS {
            let load = decode(streams);
            assert_eq!(u64::from(load.users), load.requests);
            assert!(streams as usize <= SLOTS);
        }
    }
}
