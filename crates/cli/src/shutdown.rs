//! Signals: the first asks to end in good order, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::voice::Voice;

/// Resolves once someone asked this process to end.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Listens for SIGINT and SIGTERM. A second one ends the process with the status that shells expect. The end of
    /// standard input counts as one where `with_stdin` says so.
    pub(crate) fn listen(voice: Voice, with_stdin: bool) -> anyhow::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (ask, asked) = watch::channel(false);
        if with_stdin {
            let ask = ask.clone();
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                // Nobody is left to speak to.
                let _ = ask.send(true);
            });
        }
        tokio::spawn(async move {
            for count in 1.. {
                let status = tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                };
                if count > 1 {
                    std::process::exit(status);
                }
                voice.say("ending: letting requests under way finish (again to end at once)");
                let _ = ask.send(true);
            }
        });
        Ok(Self(asked))
    }

    /// Waits for the first signal.
    pub(crate) async fn wait(mut self) {
        let _ = self.0.wait_for(|asked| *asked).await;
    }
}
