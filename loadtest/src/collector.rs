//! Takes records as they come: folds them into metrics, writes them down, shows how far the run is. It has a thread
//! of its own, for writing files is no work for the runtime that keeps the times.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::record::RequestRecord;
use crate::scenario::Targets;

/// The file of records within the report's folder.
pub(crate) const RECORDS_FILE: &str = "records.jsonl";

/// Records that may wait for the collector; a user whose record finds no room waits.
const QUEUE_LEN: usize = 1_024;

/// What came of a run's records.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) metrics: Metrics,
    pub(crate) warmup_sent: u64,
    pub(crate) warmup_failed: u64,
}

/// A collector at work. It ends when the last sender is dropped, or when a file cannot be written.
#[derive(Debug)]
pub(crate) struct Collector {
    /// Where records go.
    pub(crate) records: mpsc::Sender<RequestRecord>,
    task: JoinHandle<Result<Collected, Error>>,
}

impl Collector {
    /// Starts one. It writes to `report_dir`, if given; `targets` are those of good requests.
    pub(crate) fn start(
        report_dir: Option<&Path>,
        targets: Targets,
        live: Option<Live>,
    ) -> Result<Self, Error> {
        let metrics = Metrics::new(targets)?;
        let records_file = report_dir.map(RecordsFile::create).transpose()?;
        let (records, receiver) = mpsc::channel(QUEUE_LEN);
        let task = tokio::task::spawn_blocking(move || collect(receiver, metrics, records_file, live));
        Ok(Self { records, task })
    }

    /// Waits for what is still queued and gives everything back. Other senders must have been dropped.
    pub(crate) async fn finish(self) -> Result<Collected, Error> {
        drop(self.records);
        self.task.await.map_err(|error| Error::Broken(error.to_string()))?
    }
}

fn collect(
    mut records: mpsc::Receiver<RequestRecord>,
    metrics: Metrics,
    mut file: Option<RecordsFile>,
    mut live: Option<Live>,
) -> Result<Collected, Error> {
    let mut collected = Collected { metrics, warmup_sent: 0, warmup_failed: 0 };
    while let Some(record) = records.blocking_recv() {
        if let Some(file) = &mut file {
            file.write(&record)?;
        }
        collected.take(&record);
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
