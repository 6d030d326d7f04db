//! One case file.

use std::collections::BTreeMap;

use lb_userspace::model::{Allocations, Built, build};
use lb_userspace::source::Objects;
use serde_json::Value;

use super::checks;
use super::checks::health::HealthSteps;
use super::checks::healthz::Timeline;
use super::checks::writes::Writes;
use super::config::{self, CaseConfig};
use super::fields::{Fields, Wrong};
use super::objects;
use super::probe::{self, Prober};
use super::report::Row;

/// The state that rows are checked against.
pub(super) struct State<'a> {
    pub(super) config: &'a CaseConfig,
    pub(super) objects: Objects,
    pub(super) built: Built,
    /// The step before.
    pub(super) before: Option<Built>,
    /// Operations that the step cost; the reason when they could not be planned.
    pub(super) writes: Result<usize, String>,
}

/// What goes on from step to step.
struct Course {
    writes: Writes,
    tale: Timeline,
}

struct File<'a> {
    name: &'a str,
    area: String,
    rows: Vec<Row>,
}

/// Runs a file, unless it is of another area.
pub(super) fn run(name: &str, text: &str, area: Option<&str>, probers: &mut [Box<dyn Prober>]) -> Vec<Row> {
    let mut file = File { name, area: String::new(), rows: Vec::new() };
    let parsed = serde_saphyr::from_str::<Value>(text).map_err(|error| error.without_snippet().to_string());
    let result = parsed.and_then(Fields::of).and_then(|fields| file.all(fields, area, probers));
    if let Err(wrong) = result {
        file.push(None, "file", None, Err(wrong));
    }
    file.rows
}

impl File<'_> {
    fn push(&mut self, step: Option<&str>, name: &str, prober: Option<&str>, result: Result<(), Wrong>) {
        self.rows.push(Row {
            file: self.name.to_owned(),
            area: self.area.clone(),
            step: step.map(str::to_owned),
            name: name.to_owned(),
            prober: prober.map(str::to_owned),
            failure: result.err(),
        });
    }

    fn all(
        &mut self,
        mut fields: Fields,
        area: Option<&str>,
        probers: &mut [Box<dyn Prober>],
    ) -> Result<(), Wrong> {
        self.area = fields.text("area")?.ok_or("key area is missing")?;
        if area.is_some_and(|wanted| wanted != self.area) {
            return Ok(());
        }
        if !checks::AREAS.contains(&self.area.as_str()) {
            return Err(format!("unknown area {}", self.area));
        }
        let config = config::parse(fields.take("config"))?;
        let about = format!("{} {}", self.name, fields.text("source")?.unwrap_or_default());
        let mut course = Course { writes: Writes::new(), tale: Timeline::new(&about) };
        let steps = fields.list("steps")?;
        let whole = ["objects", "probes", "checks"].map(|key| (key.to_owned(), fields.take(key)));
        fields.finish()?;
        let whole =
            Fields::of(Value::Object(whole.into_iter().filter(|(_, value)| !value.is_null()).collect()))?;
        let mut before = None;
        if whole.keys().next().is_some() {
            before = Some(self.step(None, whole, &config, before, &mut course, probers)?);
        }
        let mut health = HealthSteps::new(&config);
        let is_health = self.area == "healthcheck";
        for step in steps {
            let mut fields = Fields::of(step)?;
            let name = fields.text("name")?.unwrap_or_default();
            if HealthSteps::is_one(&fields) {
                let result = health.step(fields);
                self.push(None, &name, None, result);
                continue;
            }
            if is_health && Timeline::is_one(&fields) {
                let result = course.tale.row(fields);
                self.push(None, &name, None, result);
                continue;
            }
            match self.step(Some(&name), fields, &config, before.take(), &mut course, probers) {
                Ok(built) => before = Some(built),
                Err(wrong) => self.push(Some(&name), "step", None, Err(wrong)),
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        step: Option<&str>,
        mut fields: Fields,
        config: &CaseConfig,
        before: Option<Built>,
        course: &mut Course,
        probers: &mut [Box<dyn Prober>],
    ) -> Result<Built, Wrong> {
        let objects = objects::objects(fields.list("objects")?)?;
        let built = build(&config.model, &objects, &Allocations::default());
        let probes = fields.list("probes")?;
        let checks = fields.list("checks")?;
        fields.finish()?;
        if !probes.is_empty() {
            for prober in probers.iter_mut() {
                self.probes(step, prober.as_mut(), &built, &probes);
            }
        }
        let state = State { config, writes: course.writes.count(&built.desired), objects, built, before };
        for check in checks {
            let name = check.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let result = Fields::of(check).and_then(|fields| {
                if self.area == "healthcheck" && Timeline::is_one(&fields) {
                    return course.tale.row(fields);
                }
                checks::run(&self.area, &state, fields)
            });
            self.push(step, &name, None, result);
        }
        Ok(state.built)
    }

    fn probes(&mut self, step: Option<&str>, prober: &mut dyn Prober, built: &Built, probes: &[Value]) {
        let prepared = prober.prepare(&built.desired);
        for value in probes {
            let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
            let result = prepared
                .clone()
                .and_then(|()| probe::parse(value.clone()))
                .and_then(|probe| probe::check(prober, &probe));
            self.push(step, name, Some(prober.name()), result);
        }
    }
}

/// Entries of a mapping by name, for comparisons.
pub(super) fn sorted<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    entries.into_iter().collect()
}
