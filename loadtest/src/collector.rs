//! Takes records as they come: folds them into metrics, writes them down, shows how far the run is. It has a thread
//! of its own, for writing files is no work for the runtime that keeps the times. Records come to it by the batch, so
//! that it is woken now and then and not by each.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::error::Error;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::record::RequestRecord;
use crate::reference::{Judge, Reference};
use crate::scenario::Targets;

/// The file of records within the report's folder.
pub(crate) const RECORDS_FILE: &str = "records.jsonl";

/// So many records go to the collector together.
const BATCH_LEN: usize = 64;
/// Fewer of them wait no longer than this.
pub(crate) const BATCH_PERIOD: Duration = Duration::from_millis(100);
/// Batches that may wait for the collector; whoever has a record beyond them waits.
const QUEUE_LEN: usize = 16;

/// What came of a run's records.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) metrics: Metrics,
    pub(crate) warmup_sent: u64,
    pub(crate) warmup_failed: u64,
}

/// Where records go.
#[derive(Debug)]
pub(crate) struct Records {
    batch: Mutex<Vec<RequestRecord>>,
    to_collector: mpsc::Sender<Vec<RequestRecord>>,
}

impl Records {
    /// Adds one at once; then waits, if a batch is full, until the collector has room for it.
    pub(crate) async fn push(&self, record: RequestRecord) {
        let is_full = {
            let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
            batch.push(record);
            batch.len() >= BATCH_LEN
        };
        if is_full {
            self.flush().await;
        }
    }

    /// Passes on what is there. A collector that has ended could not write its file, and says so when it is asked.
    pub(crate) async fn flush(&self) {
        let Ok(room) = self.to_collector.reserve().await else { return };
        let batch = {
            let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
            if batch.is_empty() {
                return;
            }
            std::mem::replace(&mut *batch, Vec::with_capacity(BATCH_LEN))
        };
        room.send(batch);
    }

    /// Waits until the collector has ended before its time.
    pub(crate) async fn broken(&self) {
        self.to_collector.closed().await;
    }
}

/// A collector at work. It ends when its [`Records`] are dropped, or when a file cannot be written.
#[derive(Debug)]
pub(crate) struct Collector(JoinHandle<Result<Collected, Error>>);

impl Collector {
    /// Starts one. It writes to `report_dir`, if given; `targets` are those of good requests, whose answers must be those
    /// of `reference`.
    pub(crate) fn start(
        report_dir: Option<&Path>,
        targets: Targets,
        reference: Option<Reference>,
        live: Option<Live>,
    ) -> Result<(Self, Records), Error> {
        let metrics = Metrics::new(targets)?;
        let records_file = report_dir.map(RecordsFile::create).transpose()?;
        let (to_collector, batches) = mpsc::channel(QUEUE_LEN);
        let thread = std::thread::Builder::new()
            .name("loadtest-collector".into())
            .spawn(move || collect(batches, metrics, Judge::new(reference), records_file, live))
            .map_err(|error| Error::Broken(format!("no thread for the records: {error}")))?;
        let records = Records { batch: Mutex::new(Vec::with_capacity(BATCH_LEN)), to_collector };
        Ok((Self(thread), records))
    }

    /// Waits for what is still queued and gives everything back. The [`Records`] must have been dropped.
    pub(crate) fn finish(self) -> Result<Collected, Error> {
        self.0.join().map_err(|_| Error::Broken("the thread that takes records panicked".into()))?
    }
}

fn collect(
    mut batches: mpsc::Receiver<Vec<RequestRecord>>,
    metrics: Metrics,
    mut judge: Judge,
    mut file: Option<RecordsFile>,
    mut live: Option<Live>,
) -> Result<Collected, Error> {
    let mut collected = Collected { metrics, warmup_sent: 0, warmup_failed: 0 };
    while let Some(mut batch) = batches.blocking_recv() {
        for record in &mut batch {
            judge.judge(record);
            if let Some(file) = &mut file {
                file.write(record)?;
            }
            collected.take(record);
        }
        if let Some(live) = &mut live {
            live.update(&collected.metrics, collected.warmup_sent);
        }
    }
    if let Some(live) = live {
        live.finish();
    }
    file.map_or(Ok(()), RecordsFile::finish)?;
    Ok(collected)
}

impl Collected {
    fn take(&mut self, record: &RequestRecord) {
        if record.warmup {
            self.warmup_sent += 1;
            self.warmup_failed += u64::from(record.failure.is_some());
        } else {
            self.metrics.add(record);
        }
    }
}

struct RecordsFile {
    path: PathBuf,
    writer: BufWriter<File>,
}

impl RecordsFile {
    fn create(dir: &Path) -> Result<Self, Error> {
        let failed = |path: &Path, source| Error::File { path: path.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
        let path = dir.join(RECORDS_FILE);
        let file = File::create(&path).map_err(|source| failed(&path, source))?;
        Ok(Self { path, writer: BufWriter::new(file) })
    }

    fn write(&mut self, record: &RequestRecord) -> Result<(), Error> {
        let written = serde_json::to_writer(&mut self.writer, record)
            .map_err(std::io::Error::from)
            .and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(|source| Error::File { path: self.path.clone(), source })
    }

    fn finish(mut self) -> Result<(), Error> {
        self.writer.flush().map_err(|source| Error::File { path: self.path, source })
    }
}
