//! What a process serves: from what was asked for to models in memory.

use anyhow::{Result, bail, ensure};
use engine::profile::Profile;
use model_store::ResolvedModel;
use registry::Reference;
use worker::WorkerModel;

use crate::config::{Config, Role};
use crate::models;
use crate::registered::{self, Label};
use crate::simulated;
use crate::voice::Voice;

/// What engines are made of.
#[derive(Debug)]
pub(crate) enum Source {
    Model(ResolvedModel),
    /// A device's time, under the profile's name unless a version is rehearsed.
    Simulated(Box<Profile>, Option<Label>),
}

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Models or, of simulated ones, references to the registry; the configured one if empty.
    pub(crate) models: Vec<String>,
    /// What is to be served beside those.
    pub(crate) also: Vec<String>,
    /// Whose time simulated engines take; none where models are to answer.
    pub(crate) profiles: Vec<Profile>,
}

impl Asked {
    /// The sources of `models` and of `also`, under the names that requests will use. Blocking; fetches what is not there.
    pub(crate) fn find(self, config: &Config, voice: Voice) -> Result<(Vec<Source>, Vec<Source>)> {
        if !self.profiles.is_empty() {
            return self.find_simulated(config);
        }
        let names = match self.models {
            names if names.is_empty() => vec![config.model.name.clone()],
            names => names,
        };
        if config.model.served_name.is_some() && names.len() > 1 {
            bail!("`model.served_name` names one model, but there are {}; leave it out", names.len());
        }
        let mut found: Vec<ResolvedModel> = Vec::new();
        for name in &names {
            let model = models::pull(config, name, voice)?;
            if found.iter().any(|other| other.name == model.name) {
                bail!(
                    "two models are called `{}`; rename one of the files, or give it with --also",
                    model.name
                );
            }
            found.push(model);
        }
        for name in &self.also {
            found.push(models::pull(config, name, voice)?);
        }
        different(&found, |model| &model.name, |model| Ok(model.version()?))?;
        let first = found[0].name.clone();
        for model in &mut found {
            if let Some(served_name) = config.model.served_name.as_ref().filter(|_| model.name == first) {
                model.name.clone_from(served_name);
            }
        }
        let also = found.split_off(names.len());
        let sources = |models: Vec<ResolvedModel>| models.into_iter().map(Source::Model).collect();
        Ok((sources(found), sources(also)))
    }

    fn find_simulated(self, config: &Config) -> Result<(Vec<Source>, Vec<Source>)> {
        let Self { models, also, profiles } = self;
        let configured = models.is_empty() && Reference::is_meant(&config.model.name);
        let models = if configured { vec![config.model.name.clone()] } else { models };
        let label = |reference: &String| registered::label(config, reference);
        let labels: Vec<Label> = models.iter().chain(&also).map(label).collect::<Result<_>>()?;
        different(&labels, |label| &label.name, |label| Ok(label.version.clone()))?;
        let mut sources: Vec<Source> = Vec::new();
        if models.is_empty() {
            ensure!(
                also.is_empty(),
                "--also is another version beside a first one; name that with --model registry:NAME@VERSION"
            );
            sources.extend(profiles.into_iter().map(|profile| Source::Simulated(Box::new(profile), None)));
            return Ok((sources, Vec::new()));
        }
        ensure!(
            profiles.len() == 1 || profiles.len() == models.len(),
            "there are {} profiles for {} models; give one for all, or one for each",
            profiles.len(),
            models.len()
        );
        for (at, label) in labels.into_iter().enumerate() {
            let profile = profiles.get(at).unwrap_or(&profiles[0]).clone();
            sources.push(Source::Simulated(Box::new(profile), Some(label)));
        }
        let also = sources.split_off(models.len());
        Ok((sources, also))
    }
}

impl Source {
    /// Blocking, and takes seconds for a model.
    pub(crate) fn load(self, mut config: Config, role: Role, voice: Voice) -> Result<WorkerModel> {
        let model = match self {
            Self::Model(model) => models::load(&config, &model, &model.name, voice)?,
            Self::Simulated(profile, label) => {
                simulated::set_limits(&mut config, &profile);
                config.validate(role)?;
                simulated::load(&config, *profile, label)?
            }
        };
        Ok(WorkerModel { model, scheduler: config.scheduler })
    }
}

/// Refuses to serve one version twice. A version is asked for only where names are the same, as it may take a file's
/// checksum.
fn different<T>(all: &[T], name: impl Fn(&T) -> &str, version: impl Fn(&T) -> Result<String>) -> Result<()> {
    for (at, one) in all.iter().enumerate() {
        for other in all[..at].iter().filter(|other| name(other) == name(one)) {
            let (name, version, other) = (name(one), version(one)?, version(other)?);
            ensure!(
                version != other,
                "version {version} of `{name}` is served already; --also is for another version"
            );
        }
    }
    Ok(())
}
