//! Which pods the user's manifests ask for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::error::{Error, Result};
use super::pods::{Container, Port, Template};
use crate::source::kube::{self, IntOrString, Kind, Metadata, Name, PodSpec};
use crate::source::{Objects, Severity, Source};

/// Largest number of replicas of one workload: each takes a namespace and a process.
const MAX_REPLICAS: i64 = 1000;

/// What the manifests ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// Workloads and how many pods of each.
    pub workloads: Vec<(Template, u32)>,
    /// All objects.
    pub objects: Arc<Objects>,
    /// What is done in another way than a cluster would, for people.
    pub notes: Vec<String>,
}

/// Reads these files, and the manifests in these folders, as the agent does.
///
/// # Errors
/// The first thing that is wrong with a pod, or with something that may be one, with file, line, object and field. What
/// is wrong with other objects is a note: the agent can do without them.
pub(super) fn read(paths: &[PathBuf]) -> Result<Wanted> {
    let snapshot = Source::new(paths).load();
    let mut notes = Vec::new();
    for problem in snapshot.problems {
        let other = ["Service ", "EndpointSlice ", "Endpoints ", "Node "];
        let is_other = other.iter().any(|kind| problem.object.starts_with(kind));
        if problem.severity == Severity::Error && !is_other {
            let place = match problem.line {
                0 => problem.file.display().to_string(),
                line => format!("{}:{line}", problem.file.display()),
            };
            let parts = [problem.object, problem.field, problem.reason];
            let reason: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            return Err(Error::invalid(place, reason.join(": ")));
        }
        notes.push(problem.to_string());
    }
    if snapshot.objects.is_empty() {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(Error::invalid(paths.join(", "), "no Kubernetes object that matters here is in it"));
    }
    let mut wanted = Wanted { notes, objects: snapshot.objects.clone(), ..Wanted::default() };
    wanted.add(&snapshot.objects)?;
    Ok(wanted)
}

impl Wanted {
    fn add(&mut self, objects: &Objects) -> Result<()> {
        let mut left_out = Vec::new();
        for ((kind, _), workload) in &objects.workloads {
            if owner_is_there(&workload.metadata, objects) {
                continue;
            }
            let mut pod = workload.spec.template.spec.clone();
            pod.subdomain = pod.subdomain.or_else(|| workload.spec.service_name.clone());
            let labels = &workload.spec.template.metadata.labels;
            let replicas = workload.spec.replicas.unwrap_or(1);
            let origin = Origin { kind: kind.name(), metadata: &workload.metadata, labels };
            self.add_workload(origin, &pod, replicas, objects, &mut left_out)?;
        }
        for pod in objects.pods.values() {
            let ended = matches!(pod.status.phase.as_deref(), Some("Succeeded" | "Failed"))
                || pod.metadata.deletion_timestamp.is_some();
            if ended || owner_is_there(&pod.metadata, objects) {
                continue;
            }
            let origin = Origin { kind: "Pod", metadata: &pod.metadata, labels: &pod.metadata.labels };
            self.add_workload(origin, &pod.spec, 1, objects, &mut left_out)?;
        }
        if !left_out.is_empty() {
            let list = left_out.join(", ");
            self.notes.push(format!("left out, as the lab has no pods on the node's own network: {list}"));
        }
        Ok(())
    }

    fn add_workload(
        &mut self,
        origin: Origin<'_>,
        pod: &PodSpec,
        replicas: i64,
        objects: &Objects,
        left_out: &mut Vec<String>,
    ) -> Result<()> {
        let Origin { kind, metadata, labels } = origin;
        let place = format!("{kind} {}", metadata.full_name());
        if pod.host_network {
            left_out.push(place);
            return Ok(());
        }
        let replicas = u32::try_from(replicas)
            .ok()
            .filter(|&replicas| i64::from(replicas) <= MAX_REPLICAS)
            .ok_or_else(|| {
            Error::invalid(&place, format!("spec.replicas is {replicas}, must be 0 to {MAX_REPLICAS}"))
        })?;
        let mut template = Template {
            kind: kind.to_owned(),
            name: metadata.name.clone(),
            namespace: metadata.namespace().to_owned(),
            labels: labels.clone(),
            hostname: pod.hostname.clone(),
            subdomain: pod.subdomain.clone(),
            containers: pod.containers.iter().map(|spec| container(spec, &place)).collect::<Result<_>>()?,
            undeclared_ports: Vec::new(),
        };
        template.check().map_err(|reason| Error::invalid(&place, reason))?;
        template.undeclared_ports = undeclared_ports(&template, objects);
        // What a cluster runs in its images has no business on this machine.
        let from_cluster = metadata.uid.is_some();
        for container in &mut template.containers {
            if from_cluster {
                container.command.clear();
            } else if container.command.is_empty() && !container.args.is_empty() {
                self.notes.push(format!(
                    "{place}: container {} has args but no command, and the lab knows no image's entry point: \
                     the lab's server runs instead",
                    container.name
                ));
            }
        }
        self.workloads.push((template, replicas));
        Ok(())
    }
}

/// Where a pod or its template comes from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    kind: &'static str,
    metadata: &'a Metadata,
    labels: &'a BTreeMap<String, String>,
}

/// Whether the manifests have what makes this object: the lab makes pods as that one asks for them.
fn owner_is_there(metadata: &Metadata, objects: &Objects) -> bool {
    let has = |kind: Kind, name: &str| {
        objects.workloads.contains_key(&(kind, Name::new(metadata.namespace(), name)))
    };
    metadata.owner_references.iter().filter(|owner| owner.controller).any(|owner| match owner.kind.as_str() {
        "Deployment" => has(Kind::Deployment, &owner.name),
        "StatefulSet" => has(Kind::StatefulSet, &owner.name),
        // `kubectl get pods,deploy` has no ReplicaSets: theirs are named after the Deployment, with a hash.
        "ReplicaSet" => {
            has(Kind::ReplicaSet, &owner.name)
                || owner
                    .name
                    .rsplit_once('-')
                    .is_some_and(|(deployment, _)| has(Kind::Deployment, deployment))
        }
        _ => false,
    })
}

/// Ports that Services send to by number, though no container names them: naming them is optional in Kubernetes.
fn undeclared_ports(template: &Template, objects: &Objects) -> Vec<Port> {
    let selects = |service: &&std::sync::Arc<kube::Service>| {
        let selector = &service.spec.selector;
        service.metadata.namespace() == template.namespace
            && !selector.is_empty()
            && selector.iter().all(|(key, value)| template.labels.get(key) == Some(value))
    };
    let mut ports: Vec<Port> = Vec::new();
    for port in objects.services.values().filter(selects).flat_map(|service| &service.spec.ports) {
        let number = match &port.target_port {
            None | Some(IntOrString::Int(0)) => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::Name(_)) => continue,
        };
        let Ok(number) = u16::try_from(number) else { continue };
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let known = |other: &Port| other.number == number && other.protocol == protocol;
        let declared = template.containers.iter().flat_map(|container| &container.ports).any(known);
        if !declared && !ports.iter().any(known) {
            ports.push(Port { name: None, number, protocol });
        }
    }
    ports
}

fn container(spec: &kube::Container, place: &str) -> Result<Container> {
    let mut ports = Vec::new();
    for port in &spec.ports {
        let number =
            u16::try_from(port.container_port).ok().filter(|&number| number > 0).ok_or_else(|| {
                Error::invalid(
                    place,
                    format!(
                        "container {}: containerPort is {}, must be 1 to 65535",
                        spec.name, port.container_port
                    ),
                )
            })?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        ports.push(Port { name: port.name.clone(), number, protocol });
    }
    Ok(Container {
        name: spec.name.clone(),
        image: spec.image.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec.env.iter().filter_map(|env| Some((env.name.clone(), env.value.clone()?))).collect(),
        ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Wanted> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        read(&[folder.path().to_owned()])
    }

    #[test]
    fn a_deployment_gives_its_template() {
        let wanted = read_text(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  replicas: 2\n  \
             template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, ports: [{containerPort: \
             81}], env: [{name: A, value: b}, {name: B}]}]}\n",
        )
        .unwrap();
        let [(template, 2)] = wanted.workloads.as_slice() else { panic!("{wanted:?}") };
        assert_eq!((template.namespace.as_str(), template.name.as_str()), ("shop", "web"));
        assert_eq!(template.labels["app"], "web");
        let container = &template.containers[0];
        assert_eq!((container.ports[0].number, container.ports[0].protocol.as_str()), (81, "TCP"));
        assert_eq!(container.env, BTreeMap::from([("A".to_owned(), "b".to_owned())]));
    }

    #[test]
    fn a_stateful_pod_has_its_service_as_subdomain() {
        let wanted = read_text("kind: StatefulSet\nmetadata: {name: b}\nspec: {serviceName: s}").unwrap();
        let [(template, 1)] = wanted.workloads.as_slice() else { panic!("{wanted:?}") };
        assert_eq!((template.kind.as_str(), template.subdomain.as_deref()), ("StatefulSet", Some("s")));
    }

    #[test]
    fn ports_that_only_services_name_are_served() {
        let wanted = read_text(
            "kind: Pod\nmetadata: {name: a, labels: {x: z}}\nspec: {containers: [{name: c, ports: [{containerPort: 81}]}]}\n\
             ---\nkind: Service\nmetadata: {name: one}\nspec: {selector: {x: z}, ports: [{name: a, port: 1, targetPort: 81}, \
             {name: b, port: 2, targetPort: 82}, {name: c, port: 53, protocol: UDP}, {name: d, port: 3, targetPort: http}]}\n\
             ---\nkind: Service\nmetadata: {name: other}\nspec: {selector: {x: a}, ports: [{port: 9}]}\n",
        )
        .unwrap();
        let template = &wanted.workloads[0].0;
        assert_eq!(template.served_ports("TCP"), [81, 82]);
        assert_eq!(template.served_ports("UDP"), [53]);
    }

    #[test]
    fn a_bad_service_is_a_note() {
        let wanted = read_text(
            "kind: Pod\nmetadata: {name: a}\n---\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 0}]}",
        )
        .unwrap();
        assert_eq!(wanted.workloads.len(), 1);
        assert!(
            wanted.notes[0].contains("a.yaml:6: Service default/s: spec.ports[0].port"),
            "{:?}",
            wanted.notes
        );
    }

    #[test]
    fn refusals_name_file_object_and_field() {
        for (text, parts) in [
            (
                "kind: Pod\nmetadata: {name: a}\nspec: {containers: 3}",
                ["a.yaml:3: Pod default/a", "containers"],
            ),
            (
                "kind: Deployment\nmetadata: {name: a}\nspec: {replicas: -1}",
                ["Deployment default/a", "spec.replicas"],
            ),
            ("kind: Pod\nspec: {containers: []}", ["a.yaml", "metadata.name"]),
            (
                "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, ports: [{containerPort: 0}]}]}",
                ["Pod default/a", "containerPort"],
            ),
            ("kind: Pod\nmetadata: {name: ../a}", ["a.yaml", "metadata.name"]),
            ("kind: [", ["a.yaml", "YAML"]),
            ("kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 0}]}", ["no Kubernetes object", ""]),
            ("kind: ConfigMap\nmetadata: {name: a}", ["no Kubernetes object", ""]),
        ] {
            let message = read_text(text).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}
