//! What is wanted: manifests, read as they change, and the desired state that follows.

use std::collections::BTreeSet;

use crate::dns::{self, Dns};
use crate::model::allocate::{Allocator, StateError};
use crate::model::desired::{Edit, Surroundings};
use crate::model::health::Checks;
use crate::model::{Basis, Model, ModelConfig, News, Note};
use crate::source::kube::{Kind, Name, Node};
use crate::source::{Change, Packed, Problem, Source};

/// From files to edits of the desired state.
pub(super) struct Wanted {
    source: Source,
    allocator: Allocator,
    model: Model,
    /// What the allocator had to say.
    notes: Vec<Note>,
    /// What has changed and is not in the kernel yet.
    edits: Vec<Edit>,
    /// What names are made of, as it was when they were made.
    named: Option<ModelConfig>,
    /// Names are not what they should be.
    rename: bool,
}

impl Wanted {
    pub(super) fn new(source: Source, allocator: Allocator) -> Self {
        Self {
            source,
            allocator,
            model: Model::default(),
            notes: Vec::new(),
            edits: Vec::new(),
            named: None,
            rename: true,
        }
    }

    /// Waits until something may have changed. Safe to cancel.
    pub(super) async fn changed(&mut self) {
        self.source.changed().await;
    }

    /// Reads what has changed.
    ///
    /// # Errors
    /// When what was given to Services cannot be written; it counts all the same.
    pub(super) fn follow(&mut self, config: &ModelConfig) -> Result<(), StateError> {
        let changes = self.source.refresh();
        let store = self.source.store();
        let is_service = |change: &Change| {
            let either = change.before.as_ref().or(change.after.as_ref());
            either.and_then(Packed::kind) == Some(Kind::Service)
        };
        let nobody = BTreeSet::new();
        let mut reallocated = &nobody;
        if self.model.is_new() || changes.iter().any(is_service) {
            self.notes = self.allocator.allocate(&store.services()).1;
            reallocated = self.allocator.reallocated();
        }
        self.rename |= !reallocated.is_empty() || dns::concerned(&changes, store);
        let basis = Basis { config, store, allocations: self.allocator.given() };
        self.edits.extend(self.model.update(basis, News { changes: &changes, reallocated }));
        self.allocator.save()
    }

    /// Gives names to those who have them now.
    pub(super) fn update_names(&mut self, dns: &mut Dns, config: &ModelConfig) {
        if self.rename || self.named.as_ref() != Some(config) {
            dns.update(config, &self.source.store().all(), self.allocator.given());
            self.rename = false;
            self.named = Some(config.clone());
        }
    }

    /// Service ports that are not in the kernel as they should be.
    pub(super) fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// They are in the kernel.
    pub(super) fn done(&mut self) {
        self.edits.clear();
        self.edits.shrink_to(64);
    }

    pub(super) fn surroundings(&self) -> &Surroundings {
        self.model.surroundings()
    }

    pub(super) fn checks(&self) -> &Checks {
        self.model.checks()
    }

    /// This node's object.
    pub(super) fn node(&self, config: &ModelConfig) -> Option<&Node> {
        self.source.store().nodes().get(&Name::new("", &config.node_name)).map(|node| &**node)
    }

    /// Number of service ports.
    pub(super) fn count(&self) -> usize {
        self.model.len()
    }

    /// What is wrong with manifests.
    pub(super) fn problems(&self) -> &[Problem] {
        self.source.problems()
    }

    /// What is good in itself, but not as a part of the whole.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.iter().chain(self.model.notes())
    }
}
