//! From a file's text to objects, document by document, so that a broken one does not harm its neighbours (Z3).

use serde_json::Value;
use tracing::debug;

use super::kube::{DecodeError, Kind, Name, Object, ObjectKey};
use super::lines;
use super::problem::Severity;
use super::validate;

/// One YAML document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its text.
    pub text: &'a str,
    /// Lines before it in the file.
    pub lines_before: u64,
}

/// Splits a file at its document markers: `---` or `...` at the start of a line, followed by a blank or the end of the
/// line (YAML 1.2.2, section 9.1.2). Documents without content are left out.
pub fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut lines_before) = (0, 0);
    let mut offset = 0;
    let mut empty = true;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = ["---", "..."].into_iter().find(|marker| {
            line.strip_prefix(marker)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        });
        if let Some(marker) = marker {
            if !empty {
                documents.push(Document { text: &text[start..offset], lines_before });
            }
            // `--- # comment` opens a document, `...` only ends one.
            start = if marker == "---" { offset } else { offset + line.len() };
            lines_before = number as u64 + u64::from(marker == "...");
            empty = marker == "..." || is_blank(&line[marker.len()..]);
        } else if !is_blank(line) && !line.starts_with('%') {
            empty = false;
        }
        offset += line.len();
    }
    if !empty {
        documents.push(Document { text: &text[start..], lines_before });
    }
    documents
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// Something to say about a document; lines count within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Line in the file.
    pub line: u64,
    /// The object, as far as it could be told.
    pub object: Option<ObjectKey>,
    /// Path of the field.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// How much it matters.
    pub severity: Severity,
}

/// What a document holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Good objects, in order, with the line they start at.
    pub objects: Vec<(Object, u64)>,
    /// Problems and remarks.
    pub findings: Vec<Finding>,
}

/// Reads one document. Never fails: what is wrong is among the findings.
pub fn read(document: Document<'_>) -> Contents {
    let mut reader = Reader { document, tree: None, contents: Contents::default() };
    match parse(document.text) {
        Ok(value) => reader.any("", value, None),
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line().max(1));
            reader.contents.findings.push(Finding {
                line: document.lines_before + line,
                object: None,
                field: String::new(),
                reason: format!("not valid YAML: {}", first_line(&error)),
                severity: Severity::Error,
            });
        }
    }
    reader.contents
}

fn first_line(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    // The place is told apart, counted within the file.
    line.rsplit_once(" at line ").map_or(line, |(text, _)| text).to_owned()
}

/// Parser settings: the limits are there against alias bombs, not against large lists.
pub(super) fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 25_000_000,
            max_depth: 200,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
        strict_booleans: true,
        // Bytes are none of the fields that matter here: they may stay text.
        ignore_binary_tag_for_string: true,
    }
}

fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

struct Reader<'a> {
    document: Document<'a>,
    /// Lines of all fields, made only when something is wrong.
    tree: Option<lines::Tree>,
    contents: Contents,
}

impl Reader<'_> {
    /// The line of a field, in the file.
    fn line(&mut self, field: &str) -> u64 {
        let text = self.document.text;
        let tree = self.tree.get_or_insert_with(|| lines::Tree::of(text));
        self.document.lines_before + tree.line(field)
    }

    fn finding(
        &mut self,
        base: &str,
        object: Option<ObjectKey>,
        field: &str,
        reason: String,
        severity: Severity,
    ) {
        let line = self.line(&join(base, field));
        self.contents.findings.push(Finding { line, object, field: field.to_owned(), reason, severity });
    }

    /// `base` is the path of the value in the document, `default_kind` what items of a typed list are.
    fn any(&mut self, base: &str, mut value: Value, default_kind: Option<&str>) {
        if value.is_null() {
            return;
        }
        if !value.is_object() {
            let reason =
                "not a Kubernetes object: a mapping with apiVersion, kind and metadata is wanted".to_owned();
            return self.finding(base, None, "", reason, Severity::Error);
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some(kind) = kind.as_deref().or(default_kind) else {
            return self.finding(base, None, "kind", "is missing".to_owned(), Severity::Error);
        };
        if let (Some(item_kind), Some(items)) = (kind.strip_suffix("List"), value.get_mut("items")) {
            let item_kind = (!item_kind.is_empty()).then_some(item_kind);
            match items.take() {
                Value::Array(items) => {
                    for (index, item) in items.into_iter().enumerate() {
                        self.any(&join(base, &format!("items[{index}]")), item, item_kind);
                    }
                }
                Value::Null => {}
                _ => self.finding(base, None, "items", "is not a list".to_owned(), Severity::Error),
            }
            return;
        }
        let Some(kind) = Kind::from_manifest(api_version.as_deref(), kind) else {
            debug!(kind, api_version, "kind of no interest here, skipped");
            return;
        };
        self.object(base, kind, value);
    }

    fn object(&mut self, base: &str, kind: Kind, mut value: Value) {
        strip_nulls(&mut value);
        let key = identity(kind, &value);
        match Object::decode(kind, &value) {
            Ok(object) => {
                let findings = validate::check(&object);
                let refused = findings.iter().any(|finding| finding.severity == Severity::Error);
                for finding in findings {
                    self.finding(base, key.clone(), &finding.field, finding.reason, finding.severity);
                }
                if !refused {
                    let line = if base.is_empty() { self.document.lines_before + 1 } else { 0 };
                    self.contents.objects.push((object, line));
                }
            }
            Err(error) => self.finding(base, key, &error.field, error.reason, Severity::Error),
        }
    }
}

fn join(base: &str, field: &str) -> String {
    match (base.is_empty(), field.is_empty()) {
        (true, _) => field.to_owned(),
        (false, true) => base.to_owned(),
        (false, false) => format!("{base}.{field}"),
    }
}

/// Who a document is about, as far as that can be told when the rest of it is wrong.
fn identity(kind: Kind, value: &Value) -> Option<ObjectKey> {
    let metadata = value.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = match metadata.get("namespace").and_then(Value::as_str) {
        _ if !kind.is_namespaced() => "",
        None | Some("") => "default",
        Some(namespace) => namespace,
    };
    Some(ObjectKey { kind, name: Name::new(namespace, name) })
}

/// Decodes one object of a known kind without checking what its fields say; `None`: of another kind.
///
/// # Errors
/// The field that does not fit its type.
pub fn decode(mut value: Value) -> Result<Option<Object>, DecodeError> {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let kind = text("kind").and_then(|kind| Kind::from_manifest(text("apiVersion"), kind));
    let Some(kind) = kind else { return Ok(None) };
    strip_nulls(&mut value);
    Object::decode(kind, &value).map(Some)
}

/// Takes out fields that are null, which is the same as left out; a null label is an empty one.
fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            for (key, value) in map.iter_mut() {
                if matches!(key.as_str(), "labels" | "annotations" | "selector" | "matchLabels")
                    && let Value::Object(texts) = value
                {
                    for text in texts.values_mut().filter(|text| text.is_null()) {
                        *text = Value::String(String::new());
                    }
                }
                strip_nulls(value);
            }
        }
        Value::Array(items) => {
            items.retain(|item| !item.is_null());
            items.iter_mut().for_each(strip_nulls);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, u64)> {
        split(text).into_iter().map(|document| (document.text, document.lines_before)).collect()
    }

    #[test]
    fn splits_at_markers_only() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("# nothing\n---\n---\n# here\n"), []);
        assert_eq!(texts("a: 1\n---\nb: 2\n"), [("a: 1\n", 0), ("---\nb: 2\n", 1)]);
        assert_eq!(texts("a: 1\n...\nb: 2\n"), [("a: 1\n", 0), ("b: 2\n", 2)]);
        assert_eq!(texts("a: |\n  x\n  ---\n ---\n---x\n").len(), 1);
        assert_eq!(texts("a: 1\r\n---\r\nb: 2\r\n").len(), 2);
        assert_eq!(texts("\u{feff}--- {a: 1}\n"), [("--- {a: 1}\n", 0)]);
    }

    const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  ports:
  - port: 80
    targetPort: http
";

    fn only(text: &str) -> Contents {
        let documents = split(text);
        assert_eq!(documents.len(), 1);
        read(documents[0])
    }

    #[test]
    fn z1_reads_yaml_and_json() {
        let yaml = only(SERVICE);
        assert_eq!(yaml.findings, []);
        let json = only(
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"web\"},\n\
             \t\"spec\": {\"ports\": [{\"port\": 80, \"targetPort\": \"http\"}]}\n}\n",
        );
        assert_eq!(json.findings, []);
        assert_eq!(yaml.objects, json.objects);
        assert_eq!(yaml.objects[0].0.key().to_string(), "Service default/web");
    }

    #[test]
    fn z1_reads_lists_and_nulls() {
        let list = only(
            "apiVersion: v1\nkind: List\nmetadata:\n  resourceVersion: ''\nitems:\n- apiVersion: v1\n  kind: Service\n  \
             metadata: {name: a, creationTimestamp: null, labels: null}\n  spec:\n    clusterIP: None\n    selector: {app: }\n    ports: null\n\
             - apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n- apiVersion: v1\n  kind: Node\n  metadata: {name: n}\n",
        );
        assert_eq!(list.findings, []);
        let keys: Vec<_> = list.objects.iter().map(|(object, _)| object.key().to_string()).collect();
        assert_eq!(keys, ["Service default/a", "Node n"]);
        let Object::Service(service) = &list.objects[0].0 else { panic!("a Service") };
        assert_eq!(service.spec.selector.get("app").map(String::as_str), Some(""));

        let typed = only(
            "kind: ServiceList\napiVersion: v1\nitems:\n- metadata: {name: a}\n  spec: {ports: [{port: 1}]}\n",
        );
        assert_eq!((typed.objects.len(), typed.findings.len()), (1, 0));
    }

    #[test]
    fn z3_names_line_field_and_reason() {
        let broken = SERVICE.replace("port: 80", "port: 80000");
        let text = format!("---\n# first\na: 1\n---\n{broken}");
        let contents = read(split(&text)[1]);
        assert_eq!(contents.objects, []);
        let finding = &contents.findings[0];
        assert_eq!((finding.line, finding.field.as_str()), (11, "spec.ports[0].port"));
        assert_eq!(finding.object.as_ref().unwrap().to_string(), "Service default/web");
        assert!(finding.reason.contains("80000"), "{}", finding.reason);
    }

    #[test]
    fn z3_wrong_type_and_syntax() {
        let contents = only(&SERVICE.replace("port: 80", "port: [80]"));
        assert_eq!(
            (contents.findings[0].line, contents.findings[0].field.as_str()),
            (7, "spec.ports[0].port")
        );

        let contents = only(&SERVICE.replace("  - port: 80", "  - port: {80"));
        assert_eq!(contents.objects, []);
        assert!(contents.findings[0].reason.starts_with("not valid YAML"), "{:?}", contents.findings);
        assert!(contents.findings[0].line >= 7, "{:?}", contents.findings);

        let contents = only("- 1\n- 2\n");
        assert!(contents.findings[0].reason.contains("not a Kubernetes object"));
        let contents = only("apiVersion: v1\nmetadata: {name: a}\n");
        assert_eq!(contents.findings[0].field, "kind");
    }

    #[test]
    fn z3_a_broken_item_leaves_its_list_alone() {
        let list = only(
            "kind: List\nitems:\n- kind: Service\n  metadata: {name: a}\n  spec: {ports: [{port: 80}]}\n- kind: Service\n  \
             metadata: {name: b}\n  spec:\n    ports:\n    - port: 0\n- kind: Service\n  metadata: {name: c}\n  spec: {ports: [{port: 80}]}\n",
        );
        let keys: Vec<_> = list.objects.iter().map(|(object, _)| object.key().name.name).collect();
        assert_eq!(keys, ["a", "c"]);
        assert_eq!((list.findings[0].line, list.findings[0].field.as_str()), (10, "spec.ports[0].port"));
    }

    #[test]
    fn a_duplicate_key_is_refused() {
        let contents = only(&format!("{SERVICE}kind: Pod\n"));
        assert_eq!(contents.findings[0].line, 9);
    }
}
