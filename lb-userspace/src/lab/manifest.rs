//! Which pods the user's manifests ask for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::error::{Context, Error, Result};
use super::pods::{Container, Port, Template};

/// Largest number of replicas of one workload: each takes a namespace and a process.
const MAX_REPLICAS: i64 = 1000;

/// What the manifests ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Workloads and how many pods of each.
    pub workloads: Vec<(Template, u32)>,
    /// What was left out or is done in another way than a cluster would, for people.
    pub notes: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: Value,
    items: Vec<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadSpec {
    replicas: Option<i64>,
    service_name: Option<String>,
    template: PodTemplate,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodTemplate {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    containers: Vec<ContainerSpec>,
    hostname: Option<String>,
    subdomain: Option<String>,
    host_network: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerSpec {
    name: String,
    image: Option<String>,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<EnvVar>,
    ports: Vec<ContainerPort>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EnvVar {
    name: String,
    value: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: Option<String>,
    container_port: i64,
    protocol: Option<String>,
}

/// Reads all `.yaml`, `.yml` and `.json` files of these folders (not of folders in them), and these files.
///
/// # Errors
/// The first file that cannot be read or makes no sense, with the object and the field.
pub(super) fn read(paths: &[PathBuf]) -> Result<Wanted> {
    let mut wanted = Wanted::default();
    for path in paths {
        for file in files_of(path)? {
            let text = fs::read_to_string(&file).context("read", file.display())?;
            wanted.add_text(&text, &file.display().to_string())?;
        }
    }
    Ok(wanted)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let metadata = fs::metadata(path).context("read", path.display())?;
    if !metadata.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).context("read", path.display())? {
        let file = entry.context("read", path.display())?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let known = file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if known && !hidden && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::invalid(path.display().to_string(), "has no .yaml, .yml or .json file"));
    }
    files.sort();
    Ok(files)
}

impl Wanted {
    /// Adds the documents of one file.
    ///
    /// # Errors
    /// Text that is no YAML, and objects with fields that do not fit; `origin` names the file.
    fn add_text(&mut self, text: &str, origin: &str) -> Result<()> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| Error::invalid(origin, error.to_string()))?;
        documents.into_iter().try_for_each(|document| self.add_object(document, origin))
    }

    fn add_object(&mut self, value: Value, origin: &str) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        let object: Object = decode(value, origin)?;
        if !object.items.is_empty() {
            return object.items.into_iter().try_for_each(|item| self.add_object(item, origin));
        }
        let place = format!("{origin}: {} {}", object.kind, object.metadata.name);
        let (pod, metadata, replicas) = match object.kind.as_str() {
            "Pod" => (decode(object.spec, &place)?, Metadata::default(), Some(1)),
            "Deployment" | "ReplicaSet" | "StatefulSet" => {
                let spec: WorkloadSpec = decode(object.spec, &place)?;
                let mut pod = spec.template.spec;
                if object.kind == "StatefulSet" {
                    pod.subdomain = pod.subdomain.or(spec.service_name);
                }
                (pod, spec.template.metadata, spec.replicas)
            }
            "DaemonSet" => {
                let spec: WorkloadSpec = decode(object.spec, &place)?;
                // The lab has one node.
                (spec.template.spec, spec.template.metadata, Some(1))
            }
            "Job" | "CronJob" => {
                self.notes.push(format!("{place}: the lab runs no jobs, left out"));
                return Ok(());
            }
            _ => return Ok(()),
        };
        if object.metadata.name.is_empty() {
            return Err(Error::invalid(place, "metadata.name is missing"));
        }
        if pod.host_network {
            self.notes.push(format!("{place}: hostNetwork is not supported, left out"));
            return Ok(());
        }
        let replicas = replicas.unwrap_or(1);
        if !(0..=MAX_REPLICAS).contains(&replicas) {
            return Err(Error::invalid(
                place,
                format!("spec.replicas is {replicas}, must be 0 to {MAX_REPLICAS}"),
            ));
        }
        let labels = if object.kind == "Pod" { object.metadata.labels } else { metadata.labels };
        let template = Template {
            kind: object.kind,
            name: object.metadata.name,
            namespace: match object.metadata.namespace {
                Some(namespace) if !namespace.is_empty() => namespace,
                _ => "default".to_owned(),
            },
            labels,
            hostname: pod.hostname,
            subdomain: pod.subdomain,
            containers: containers(pod.containers, &place)?,
        };
        template.check().map_err(|reason| Error::invalid(&place, reason))?;
        self.note_images(&template, &place);
        self.workloads.push((template, u32::try_from(replicas).unwrap_or_default()));
        Ok(())
    }

    fn note_images(&mut self, template: &Template, place: &str) {
        for container in template.containers.iter().filter(|container| container.command.is_empty()) {
            if !container.args.is_empty() {
                self.notes.push(format!(
                    "{place}: container {} has args but no command, and the lab knows no image's entry point: \
                     the lab's server runs instead",
                    container.name
                ));
            }
        }
    }
}

fn containers(specs: Vec<ContainerSpec>, place: &str) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for spec in specs {
        let mut ports = Vec::new();
        for port in spec.ports {
            let number = u16::try_from(port.container_port).ok().filter(|&number| number > 0);
            ports.push(Port {
                name: port.name,
                number: number.ok_or_else(|| {
                    Error::invalid(
                        place,
                        format!(
                            "container {}: containerPort is {}, must be 1 to 65535",
                            spec.name, port.container_port
                        ),
                    )
                })?,
                protocol: port.protocol.unwrap_or_else(|| "TCP".to_owned()),
            });
        }
        containers.push(Container {
            name: spec.name,
            image: spec.image,
            command: spec.command,
            args: spec.args,
            env: spec.env.into_iter().filter_map(|env| Some((env.name, env.value?))).collect(),
            ports,
        });
    }
    Ok(containers)
}

fn decode<T: for<'de> Deserialize<'de> + Default>(value: Value, place: &str) -> Result<T> {
    if value.is_null() {
        return Ok(T::default());
    }
    serde_path_to_error::deserialize(value)
        .map_err(|error| Error::invalid(place, format!("{}: {}", error.path(), error.inner())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Wanted> {
        let mut wanted = Wanted::default();
        wanted.add_text(text, "a.yaml").map(|()| wanted)
    }

    #[test]
    fn a_deployment_gives_its_template() {
        let wanted = read_text(
            "kind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  replicas: 2\n  template:\n    \
             metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, ports: [{containerPort: 81}]}]}\n---\n\
             kind: Service\nmetadata: {name: web}\n",
        )
        .unwrap();
        let [(template, 2)] = wanted.workloads.as_slice() else { panic!("{wanted:?}") };
        assert_eq!((template.namespace.as_str(), template.name.as_str()), ("shop", "web"));
        assert_eq!(template.labels["app"], "web");
        assert_eq!(template.containers[0].ports[0].number, 81);
        assert_eq!(template.containers[0].ports[0].protocol, "TCP");
    }

    #[test]
    fn lists_are_opened() {
        let wanted = read_text(
            "kind: List\nitems:\n- {kind: Pod, metadata: {name: a, labels: {x: z}}, spec: {containers: []}}\n- \
             {kind: StatefulSet, metadata: {name: b}, spec: {serviceName: s}}\n",
        )
        .unwrap();
        let kinds: Vec<_> = wanted.workloads.iter().map(|(template, _)| template.kind.as_str()).collect();
        assert_eq!(kinds, ["Pod", "StatefulSet"]);
        assert_eq!(wanted.workloads[0].0.labels["x"], "z");
        assert_eq!(wanted.workloads[1].0.subdomain.as_deref(), Some("s"));
    }

    #[test]
    fn refusals_name_file_object_and_field() {
        for (text, parts) in [
            ("kind: Pod\nmetadata: {name: a}\nspec: {containers: 3}", ["Pod a", "containers"]),
            (
                "kind: Deployment\nmetadata: {name: a}\nspec: {replicas: -1}",
                ["Deployment a", "spec.replicas"],
            ),
            ("kind: Pod\nspec: {containers: []}", ["Pod", "metadata.name"]),
            (
                "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, ports: [{containerPort: 0}]}]}",
                ["container c", "containerPort is 0"],
            ),
            ("kind: Pod\nmetadata: {name: ../a}", ["Pod ../a", "name"]),
            ("kind: [", ["a.yaml", ""]),
        ] {
            let message = read_text(text).unwrap_err().to_string();
            assert!(message.starts_with("a.yaml"), "{message}");
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
