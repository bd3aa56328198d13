//! `tenk loadtest run`: arguments in, a report out.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::config::{ApiKey, RunConfig};
use crate::driver::LoadTest;
use crate::report::Report;

/// Load a server that speaks OpenAI's API with a fixed number of users, and report what it did.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// The server, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub target: String,
    /// Users, each with one request in flight at a time
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub users: u32,
    /// End after so many requests; 100 unless --duration-s is given
    #[arg(long, value_name = "N", conflicts_with = "duration_s")]
    pub requests: Option<u64>,
    /// Send for so many seconds, then let what is in flight end
    #[arg(long, value_name = "S")]
    pub duration_s: Option<f64>,
    /// Requests to send before the measured ones; they are in no figure
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warmup: u64,
    /// About how many tokens a prompt has, the chat template not counted
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub prompt_tokens: u32,
    /// How many of them all prompts start with; without it no two prompts start alike
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub shared_prefix_tokens: u32,
    /// Take prompts from a file, each line {"prompt": "…"} or {"messages": […]}, with "max_tokens" if wanted
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt_tokens", "shared_prefix_tokens"])]
    pub prompts: Option<PathBuf>,
    /// The most tokens of an answer
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_tokens: u32,
    /// Ask for answers that go on to --max-tokens, where the server knows the field
    #[arg(long)]
    pub ignore_eos: bool,
    /// Sampling temperature; the server's own unless given
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,
    /// The model's name; the first of /v1/models unless given
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Sent as a bearer token
    #[arg(long, env = "TENK_API_KEY", hide_env_values = true, value_name = "KEY", value_parser = parse_key)]
    pub api_key: Option<ApiKey>,
    /// Ask for whole answers; times to first token are then unknown
    #[arg(long)]
    pub no_stream: bool,
    /// Ask for token ids, which count each chunk's tokens, where the server knows the field
    #[arg(long)]
    pub return_token_ids: bool,
    /// Open a connection for each request, where a server closes them unannounced
    #[arg(long)]
    pub no_keep_alive: bool,
    /// Write report.json, report.csv, report.html and records.jsonl, a line for each request, into this folder
    #[arg(long, value_name = "DIR")]
    pub report_dir: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Repeats the prompts of an earlier run, which a server may have cached; a new seed is drawn unless given
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Exit with success even when requests failed
    #[arg(long)]
    pub allow_errors: bool,
    /// The longest wait for a connection, in seconds
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    pub connect_timeout_s: f64,
    /// The longest that a request may take, in seconds
    #[arg(long, default_value_t = 300.0, value_name = "S")]
    pub request_timeout_s: f64,
}

fn parse_key(key: &str) -> Result<ApiKey, std::convert::Infallible> {
    Ok(ApiKey::from(key.to_owned()))
}

impl RunArgs {
    /// The settings that these arguments mean. `new_seed` is taken unless a seed was given.
    pub fn config(&self, new_seed: u64) -> RunConfig {
        let defaults = RunConfig::default();
        RunConfig {
            target: self.target.clone(),
            model: self.model.clone(),
            users: self.users,
            requests: if self.duration_s.is_some() { None } else { self.requests.or(defaults.requests) },
            duration_s: self.duration_s,
            warmup: self.warmup,
            prompt_tokens: self.prompt_tokens,
            shared_prefix_tokens: self.shared_prefix_tokens,
            prompt_file: self.prompts.clone(),
            max_tokens: self.max_tokens,
            ignore_eos: self.ignore_eos,
            temperature: self.temperature,
            stream: !self.no_stream,
            return_token_ids: self.return_token_ids,
            keep_alive: !self.no_keep_alive,
            seed: self.seed.unwrap_or(new_seed),
            connect_timeout_s: self.connect_timeout_s,
            request_timeout_s: self.request_timeout_s,
        }
    }
}

/// What a run came to, for the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every request succeeded, or errors were allowed.
    Passed,
    /// A request failed.
    Failed,
    /// The run was stopped before its end.
    Interrupted,
}

impl Verdict {
    /// Judges `report`.
    pub const fn of(report: &Report, allow_errors: bool) -> Self {
        if report.interrupted {
            Self::Interrupted
        } else if report.requests.failed > 0 && !allow_errors {
            Self::Failed
        } else {
            Self::Passed
        }
    }
}

impl From<Verdict> for ExitCode {
    /// 0, 1, or 130 as shells report an interrupt.
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Passed => Self::SUCCESS,
            Verdict::Failed => Self::FAILURE,
            Verdict::Interrupted => Self::from(130),
        }
    }
}

/// Runs the load test and prints its report to standard output. Ctrl-C ends the run early, with a report.
///
/// # Errors
/// When the run cannot start, or a report cannot be written. Failed requests are a [`Verdict`].
pub async fn run(args: RunArgs) -> anyhow::Result<Verdict> {
    let new_seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let load_test = LoadTest {
        config: args.config(new_seed),
        api_key: args.api_key,
        report_dir: args.report_dir.clone(),
        progress: true,
    };
    let stop = CancellationToken::new();
    let on_interrupt = tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let report = load_test.run(stop).await;
    on_interrupt.abort();
    let report = report?;

    if let Some(dir) = &args.report_dir {
        report.save(dir)?;
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        report.write_json(&mut stdout)?
    } else {
        report.write_table(&mut stdout)?
    }
    stdout.flush()?;
    Ok(Verdict::of(&report, args.allow_errors))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: RunArgs,
    }

    fn parse(line: &str) -> Result<RunArgs, clap::Error> {
        Command::try_parse_from(std::iter::once("run").chain(line.split(' '))).map(|command| command.args)
    }

    #[test]
    fn arguments_alone_give_the_default_settings() {
        let args = parse("--target http://127.0.0.1:8000").expect("enough");
        assert_eq!(args.config(7), RunConfig { seed: 7, ..RunConfig::default() });
        args.config(7).validate().expect("valid");
    }

    #[test]
    fn every_argument_reaches_the_settings() {
        let args = parse(
            "--target http://h --users 3 --duration-s 1.5 --warmup 4 --prompt-tokens 40 --shared-prefix-tokens 5 \
             --max-tokens 6 --ignore-eos --temperature 0.5 --model m --no-stream --return-token-ids --no-keep-alive --seed 9 \
             --connect-timeout-s 2 --request-timeout-s 3",
        );
        let expected = RunConfig {
            target: "http://h".into(),
            model: Some("m".into()),
            users: 3,
            requests: None,
            duration_s: Some(1.5),
            warmup: 4,
            prompt_tokens: 40,
            shared_prefix_tokens: 5,
            prompt_file: None,
            max_tokens: 6,
            ignore_eos: true,
            temperature: Some(0.5),
            stream: false,
            return_token_ids: true,
            keep_alive: false,
            seed: 9,
            connect_timeout_s: 2.0,
            request_timeout_s: 3.0,
        };
        assert_eq!(args.expect("known").config(7), expected);
    }

    #[test]
    fn arguments_that_exclude_each_other_are_refused() {
        assert!(parse("--target http://h --requests 3 --duration-s 1").is_err());
        assert!(parse("--target http://h --prompts p.jsonl --prompt-tokens 9").is_err());
        let args = parse("--target http://h --prompts p.jsonl").expect("fits together");
        assert_eq!(args.config(0).prompt_file, Some(PathBuf::from("p.jsonl")));
    }
}
