//! Files that come, change, break and go (Z1, Z3).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::{Problem, Severity, Snapshot, Source};

fn service(name: &str, port: u32) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n")
}

/// `name:port` of all Services.
fn ports(snapshot: &Snapshot) -> Vec<String> {
    let services = snapshot.objects.services.values();
    services.map(|service| format!("{}:{}", service.metadata.name, service.spec.ports[0].port)).collect()
}

fn errors(snapshot: &Snapshot) -> Vec<&Problem> {
    snapshot.problems.iter().filter(|problem| problem.severity == Severity::Error).collect()
}

/// Replaces a file as editors do.
fn replace(folder: &Path, name: &str, text: &str) {
    let new = folder.join(format!(".{name}.new"));
    fs::write(&new, text).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

struct Folder {
    temporary: tempfile::TempDir,
    source: Source,
}

impl Folder {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let source = Source::new([temporary.path()]);
        Self { temporary, source }
    }

    fn path(&self) -> &Path {
        self.temporary.path()
    }

    fn write(&mut self, name: &str, text: &str) -> Snapshot {
        replace(self.temporary.path(), name, text);
        self.source.load()
    }
}

#[test]
fn z1_a_folder_is_read_in_part() {
    let mut folder = Folder::new();
    for name in ["a.yaml", "b.yml", "c.json", "d.txt", ".e.yaml", "f.yaml~"] {
        let service_name = name.trim_start_matches('.').split('.').next().unwrap();
        fs::write(folder.path().join(name), service(service_name, 80)).unwrap();
    }
    fs::create_dir(folder.path().join("g.yaml")).unwrap();
    let snapshot = folder.source.load();
    assert_eq!(ports(&snapshot), ["a:80", "b:80", "c:80"]);
    assert_eq!(snapshot.problems, []);

    // A file that is named is read whatever it is called.
    let snapshot = Source::new([folder.path().join("d.txt")]).load();
    assert_eq!(ports(&snapshot), ["d:80"]);
}

#[test]
fn z3_a_broken_document_leaves_everything_in_place() {
    let mut folder = Folder::new();
    folder.write("1.yaml", &format!("{}---\n{}", service("a", 1), service("b", 2)));
    folder.write("2.yaml", &service("c", 3));

    // The object is known: the others may change and go, its last good state stays.
    let snapshot = folder.write("1.yaml", &format!("{}---\n{}", service("b", 70_000), service("d", 4)));
    assert_eq!(ports(&snapshot), ["b:2", "c:3", "d:4"]);
    let problems = errors(&snapshot);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].to_string(),
        format!(
            "{}:7: Service default/b: spec.ports[0].port: 70000 is not between 1 and 65535 \
             (the last good state stays in force)",
            folder.path().join("1.yaml").display()
        )
    );

    // It stays broken over further changes, and is mended.
    let snapshot = folder.write("2.yaml", &service("c", 33));
    assert_eq!(ports(&snapshot), ["b:2", "c:33", "d:4"]);
    let snapshot = folder.write("1.yaml", &service("b", 22));
    assert_eq!(ports(&snapshot), ["b:22", "c:33"]);
    assert_eq!(snapshot.problems, []);
}

#[test]
fn z3_a_document_nobody_can_read_may_be_any_of_the_file() {
    let mut folder = Folder::new();
    folder.write("1.yaml", &format!("{}---\n{}", service("a", 1), service("b", 2)));
    let snapshot = folder.write("1.yaml", &format!("{}---\nkind: [Service\n", service("a", 11)));
    assert_eq!(ports(&snapshot), ["a:11", "b:2"]);
    assert!(errors(&snapshot)[0].kept_last_good);
    assert!(errors(&snapshot)[0].line >= 9, "{:?}", snapshot.problems);

    let snapshot = folder.write("1.yaml", "\u{1}");
    assert_eq!(ports(&snapshot), ["a:11", "b:2"]);
    fs::write(folder.path().join("1.yaml"), b"a: \xff\n").unwrap();
    let snapshot = folder.source.load();
    assert_eq!(ports(&snapshot), ["a:11", "b:2"]);
    assert!(errors(&snapshot)[0].reason.contains("UTF-8"));

    fs::remove_file(folder.path().join("1.yaml")).unwrap();
    let snapshot = folder.source.load();
    assert_eq!((ports(&snapshot), snapshot.problems), (vec![], vec![]));
}

#[test]
fn z3_a_newcomer_that_is_broken_has_no_good_state() {
    let mut folder = Folder::new();
    let snapshot = folder.write("1.yaml", &service("a", 0));
    assert_eq!(ports(&snapshot), [""; 0]);
    assert!(!errors(&snapshot)[0].kept_last_good);
}

/// Nine to the tenth strings in less than a kilobyte.
#[test]
fn an_alias_bomb_is_refused() {
    let list = |of: &str| [of; 9].join(", ");
    let mut text = format!("a0: &a0 [{}]\n", list("boom"));
    for level in 1..10 {
        text += &format!("a{level}: &a{level} [{}]\n", list(&format!("*a{}", level - 1)));
    }
    let mut folder = Folder::new();
    folder.write("1.yaml", &service("a", 1));
    let snapshot = folder.write("2.yaml", &(text + "kind: Service\nmetadata: {name: *a9}\n"));
    assert_eq!(ports(&snapshot), ["a:1"]);
    assert!(errors(&snapshot)[0].to_string().contains("budget"), "{:?}", errors(&snapshot));
}

#[test]
fn a_file_that_is_too_long_is_refused_and_keeps_its_state() {
    let mut folder = Folder::new();
    folder.write("1.yaml", &service("a", 1));
    let path = folder.path().join("2.yaml");
    fs::write(&path, service("b", 2)).unwrap();
    assert_eq!(ports(&folder.source.load()), ["a:1", "b:2"]);
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_len(super::file::LONGEST + 1).unwrap();
    let snapshot = folder.source.load();
    assert_eq!(ports(&snapshot), ["a:1", "b:2"]);
    let error = errors(&snapshot)[0];
    assert!(error.to_string().contains("2.yaml: is longer than 64 MiB: split it"), "{error}");
    assert!(error.kept_last_good);
    // Mended.
    fs::write(&path, service("b", 3)).unwrap();
    let snapshot = folder.source.load();
    assert_eq!(ports(&snapshot), ["a:1", "b:3"]);
    assert!(errors(&snapshot).is_empty());
}

#[test]
fn z3_an_object_that_moves_to_another_file_and_breaks_keeps_its_state() {
    let mut folder = Folder::new();
    folder.write("1.yaml", &service("a", 1));
    fs::remove_file(folder.path().join("1.yaml")).unwrap();
    let snapshot = folder.write("2.yaml", &service("a", 0));
    assert_eq!(ports(&snapshot), ["a:1"]);
    assert!(errors(&snapshot)[0].kept_last_good);
}

#[test]
fn z3_duplicates_are_named_and_the_last_file_wins() {
    let mut folder = Folder::new();
    folder.write("2.yaml", &service("a", 2));
    let snapshot = folder.write("1.yaml", &service("a", 1));
    assert_eq!(ports(&snapshot), ["a:2"]);
    assert_eq!(snapshot.problems.len(), 1);
    assert_eq!(snapshot.problems[0].severity, Severity::Warning);
    assert!(snapshot.problems[0].reason.contains("1.yaml: this one is used"), "{}", snapshot.problems[0]);

    fs::remove_file(folder.path().join("2.yaml")).unwrap();
    assert_eq!(ports(&folder.source.load()), ["a:1"]);
    let snapshot = folder.write("1.yaml", &format!("{}---\n{}", service("a", 1), service("a", 3)));
    assert_eq!(ports(&snapshot), ["a:3"]);
    assert!(snapshot.problems[0].reason.contains("first at line 1"), "{}", snapshot.problems[0]);
}

#[test]
fn a_folder_that_is_gone_is_named_and_may_return() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("manifests");
    let mut source = Source::new([&folder]);
    let snapshot = source.load();
    assert_eq!(snapshot.problems.len(), 1);
    assert!(
        snapshot.problems[0].to_string().ends_with("manifests: does not exist"),
        "{}",
        snapshot.problems[0]
    );
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    let snapshot = source.load();
    assert_eq!((ports(&snapshot), snapshot.problems), (vec!["a:1".to_owned()], vec![]));
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ports(&source.load()), [""; 0]);
}

#[test]
fn z3_last_good_states_survive_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, memory) = (temporary.path().join("manifests"), temporary.path().join("kept.json"));
    fs::create_dir(&folder).unwrap();
    let open = || {
        let mut source = Source::new([&folder]);
        source.remember_in(memory.clone()).unwrap();
        source
    };
    let good = format!("{}---\n{}", service("a", 1), service("b", 2));
    replace(&folder, "1.yaml", &good);
    let mut source = open();
    source.load();
    assert!(!memory.exists());

    // One that is known, and one that nobody can read.
    replace(&folder, "1.yaml", &good.replace("port: 1", "port: 0"));
    assert_eq!(ports(&source.load()), ["a:1", "b:2"]);
    let mut source = open();
    let snapshot = source.load();
    assert_eq!(ports(&snapshot), ["a:1", "b:2"]);
    assert!(errors(&snapshot)[0].kept_last_good);
    replace(&folder, "1.yaml", "kind: [\n");
    assert_eq!(ports(&source.load()), ["a:1", "b:2"]);
    let snapshot = open().load();
    assert_eq!(ports(&snapshot), ["a:1", "b:2"]);
    assert!(errors(&snapshot)[0].kept_last_good);

    // Mended while nobody ran: only what is written counts, and nothing is left to remember.
    replace(&folder, "1.yaml", &service("b", 22));
    let snapshot = open().load();
    assert_eq!((ports(&snapshot), snapshot.problems), (vec!["b:22".to_owned()], vec![]));
    assert!(!memory.exists());

    fs::write(&memory, "{").unwrap();
    let problem = Source::new([&folder]).remember_in(memory.clone()).unwrap_err();
    assert!(problem.to_string().contains("is damaged"), "{problem}");
}

/// Loads until the Services are as wanted; panics when changes are not noticed in time.
async fn until(source: &mut Source, wanted: &[&str]) {
    let wait = async {
        loop {
            let snapshot = source.load();
            if ports(&snapshot) == wanted {
                return;
            }
            source.changed().await;
        }
    };
    // Well below the time of the slow look, so that it is inotify that is tested.
    tokio::time::timeout(Duration::from_secs(5), wait)
        .await
        .unwrap_or_else(|_| panic!("no {wanted:?} in time"));
}

#[tokio::test]
async fn changes_are_noticed() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    let mut source = Source::new([&folder]);
    until(&mut source, &[]).await;
    fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
    until(&mut source, &["a:1"]).await;
    // In place, as large as before.
    fs::write(folder.join("a.yaml"), service("a", 2)).unwrap();
    until(&mut source, &["a:2"]).await;
    replace(&folder, "a.yaml", &service("a", 3));
    until(&mut source, &["a:3"]).await;
    fs::remove_file(folder.join("a.yaml")).unwrap();
    until(&mut source, &[]).await;
    fs::remove_dir(&folder).unwrap();
    until(&mut source, &[]).await;
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("b.yaml"), service("b", 1)).unwrap();
    until(&mut source, &["b:1"]).await;
    fs::write(folder.join("b.yaml"), service("b", 2)).unwrap();
    until(&mut source, &["b:2"]).await;
}

#[tokio::test]
async fn a_single_file_and_a_mounted_configmap_are_watched() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    for (version, port) in [("..1", 1), ("..2", 2)] {
        fs::create_dir(folder.join(version)).unwrap();
        fs::write(folder.join(version).join("a.yaml"), service("a", port)).unwrap();
    }
    symlink("..1", folder.join("..data")).unwrap();
    symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
    let mut all = Source::new([folder]);
    let mut single = Source::new([folder.join("a.yaml")]);
    until(&mut all, &["a:1"]).await;
    until(&mut single, &["a:1"]).await;
    symlink("..2", folder.join("..new")).unwrap();
    fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    until(&mut all, &["a:2"]).await;
    until(&mut single, &["a:2"]).await;
}

#[tokio::test]
async fn reading_is_no_change() {
    let mut folder = Folder::new();
    folder.write("a.yaml", &service("a", 1));
    tokio::time::sleep(Duration::from_millis(100)).await;
    folder.source.load();
    folder.source.load();
    let quiet = tokio::time::timeout(Duration::from_millis(300), folder.source.changed()).await;
    assert!(quiet.is_err(), "a change was seen where there was none");
}

#[test]
fn a_large_folder_is_read_again_only_where_it_changed() {
    let mut folder = Folder::new();
    for number in 0..10_000 {
        fs::write(folder.path().join(format!("{number}.yaml")), service(&format!("s{number}"), 80)).unwrap();
    }
    let start = std::time::Instant::now();
    assert_eq!(folder.source.load().objects.services.len(), 10_000);
    let first = start.elapsed();
    // Past the age at which time stamps are trusted.
    std::thread::sleep(Duration::from_millis(60));
    folder.source.load();
    fs::write(folder.path().join("5000.yaml"), service("s5000", 81)).unwrap();
    let start = std::time::Instant::now();
    let snapshot = folder.source.load();
    let second = start.elapsed();
    assert!(ports(&snapshot).contains(&"s5000:81".to_owned()));
    assert!(second < first / 2, "first load {first:?}, second load {second:?}");
}
