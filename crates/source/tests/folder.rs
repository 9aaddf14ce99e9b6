//! Silence deletes nothing, statements do.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use veer_resources::{Diagnostic, Kind};
use veer_source::{CONFIRM_FILE, FolderSource, POLL, Silence, Snapshot, SourceState};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: a}}, ports: [{{port: {port}}}]}}\n"
    )
}

fn export(name: &str) -> String {
    format!(
        "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {{name: {name}, annotations: {{veer.dev/audience: \"*\"}}}}\n"
    )
}

struct Folder {
    dir: TempDir,
    source: FolderSource,
}

impl Folder {
    /// A folder that holds these files, looked at once.
    fn with(files: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = FolderSource::new(vec![dir.path().to_owned()]);
        let mut folder = Self { dir, source };
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder.look();
        folder
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn write(&mut self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&mut self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn look(&mut self) -> Snapshot {
        self.source.poll();
        self.source.snapshot()
    }

    /// Two looks: what is still there then is in force.
    fn settle(&mut self) -> Snapshot {
        self.look();
        self.look()
    }
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let names: BTreeSet<String> =
        snapshot.objects.iter().map(|o| format!("{} {}", o.kind.name(), o.meta.name)).collect();
    assert_eq!(names.len(), snapshot.objects.len(), "an object is there twice");
    names.into_iter().collect()
}

fn port(snapshot: &Snapshot) -> u16 {
    let Kind::Service(service) = &snapshot.objects[0].kind else { panic!("not a Service") };
    service.ports[0].port
}

fn codes(snapshot: &Snapshot) -> Vec<&'static str> {
    snapshot.diagnostics.iter().map(|d: &Diagnostic| d.code).filter(|code| *code >= "V02" || *code < "V01").collect()
}

fn silence(snapshot: &Snapshot) -> Option<&Silence> {
    match &snapshot.state {
        SourceState::Stale { silence, .. } => Some(silence),
        _ => None,
    }
}

const BROKEN: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: cart}\nspec: {ports: [{port: 99999}]}\n";

#[test]
fn an_edit_takes_effect_at_the_next_look_and_quiet_looks_publish_nothing() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80))]);
    assert_eq!((port(&folder.source.snapshot()), folder.source.snapshot().generation), (80, 1));
    assert_eq!(folder.source.snapshot().state, SourceState::Synced);
    assert!(!folder.source.poll());
    folder.write("a.yaml", &service("cart", 81));
    let snapshot = folder.look();
    assert_eq!((port(&snapshot), snapshot.generation), (81, 2));
    folder.write("below/b.yml", &service("pay", 82));
    folder.write("note.txt", "not a manifest");
    folder.write(".hidden.yaml", &service("hidden", 83));
    assert_eq!(names(&folder.look()), ["Service cart", "Service pay"]);
    for _ in 0..10 {
        assert!(!folder.source.poll());
    }
    // Written and renamed into place, as careful editors do.
    fs::write(folder.path("a.yaml.tmp"), service("cart", 84)).unwrap();
    fs::rename(folder.path("a.yaml.tmp"), folder.path("a.yaml")).unwrap();
    assert_eq!(port(&folder.look()), 84);
}

#[test]
fn an_edit_of_the_same_length_under_the_same_time_stamp_is_seen() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80))]);
    folder.write("a.yaml", &service("cart", 81));
    let stamp = fs::metadata(folder.path("a.yaml")).unwrap().modified().unwrap();
    assert_eq!(port(&folder.look()), 81);
    folder.write("a.yaml", &service("cart", 82));
    fs::File::options().write(true).open(folder.path("a.yaml")).unwrap().set_modified(stamp).unwrap();
    assert_eq!(port(&folder.look()), 82);
}

#[test]
fn a_removed_file_is_a_statement_at_the_second_look() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80)), ("b.yaml", service("pay", 80))]);
    folder.remove("b.yaml");
    assert_eq!(names(&folder.look()), ["Service cart", "Service pay"]);
    let snapshot = folder.look();
    assert_eq!(names(&snapshot), ["Service cart"]);
    assert_eq!(snapshot.state, SourceState::Synced);
}

#[test]
fn a_gap_while_an_editor_writes_deletes_nothing() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80)), ("b.yaml", service("pay", 80))]);
    folder.remove("a.yaml");
    assert_eq!(names(&folder.look()).len(), 2);
    folder.write("a.yaml", &service("cart", 81));
    let snapshot = folder.look();
    assert_eq!((names(&snapshot).len(), port(&snapshot)), (2, 81));
    folder.remove("a.yaml");
    assert_eq!(names(&folder.look()).len(), 2, "the gap before does not count");
}

#[test]
fn an_object_left_out_of_a_file_is_deleted_at_the_second_look() {
    let both = format!("{}---\n{}", service("cart", 80), service("pay", 80));
    let mut folder = Folder::with(&[("a.yaml", both.clone())]);
    // Written in place and caught half way, where the half is a manifest by itself.
    folder.write("a.yaml", &service("cart", 80));
    assert_eq!(names(&folder.look()).len(), 2);
    folder.write("a.yaml", &both);
    assert_eq!(names(&folder.settle()).len(), 2);
    folder.write("a.yaml", &service("cart", 80));
    assert_eq!(names(&folder.settle()), ["Service cart"]);
}

#[test]
fn a_file_with_errors_keeps_all_its_objects() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80)), ("b.yaml", service("pay", 80))]);
    folder.write("a.yaml", BROKEN);
    let snapshot = folder.settle();
    assert_eq!(names(&snapshot), ["Service cart", "Service pay"]);
    assert_eq!(codes(&snapshot), ["V0204", "V0013"]);
    assert_eq!(snapshot.state, SourceState::Synced);
    folder.write("a.yaml", &service("cart", 81));
    let snapshot = folder.look();
    assert_eq!(codes(&snapshot), [""; 0]);
    assert!(snapshot.objects.iter().any(|o| matches!(&o.kind, Kind::Service(s) if s.ports[0].port == 81)));
}

#[test]
fn a_file_that_never_was_right_gives_what_can_be_read_of_it() {
    let text = format!("{BROKEN}---\n{}", service("pay", 80));
    let mut folder = Folder::with(&[("a.yaml", text)]);
    assert_eq!(names(&folder.source.snapshot()), ["Service pay"]);
    folder.write("a.yaml", "a: [");
    let snapshot = folder.settle();
    assert_eq!(names(&snapshot), ["Service pay"], "{:?}", snapshot.diagnostics);
}

#[test]
fn a_file_without_bytes_or_that_cannot_be_read_keeps_its_objects() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80)), ("b.yaml", service("pay", 80))]);
    folder.write("a.yaml", "");
    let snapshot = folder.settle();
    assert_eq!((names(&snapshot).len(), codes(&snapshot)), (2, vec!["V0204"]));
    folder.remove("a.yaml");
    // Reading it fails with an error of input and output, for root as well.
    symlink("/proc/self/mem", folder.path("a.yaml")).unwrap();
    let snapshot = folder.settle();
    assert_eq!((names(&snapshot).len(), codes(&snapshot)), (2, vec!["V0203"]));
    assert!(matches!(silence(&snapshot), Some(Silence::Unreadable(_))));
    folder.remove("a.yaml");
    folder.write("a.yaml", &service("cart", 80));
    let snapshot = folder.settle();
    assert_eq!((names(&snapshot).len(), codes(&snapshot)), (2, vec![]));
    assert_eq!(snapshot.state, SourceState::Synced);
    // A comment is a statement.
    folder.write("a.yaml", "# nothing any more\n");
    assert_eq!(names(&folder.settle()), ["Service pay"]);
}

#[test]
fn an_empty_vanished_or_unreadable_folder_is_silence() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80)), ("below/b.yaml", service("pay", 80))]);
    let root = folder.dir.path().to_owned();
    let aside = root.with_extension("aside");
    let kept = |folder: &mut Folder, wanted: &Silence, code: &str| {
        let snapshot = folder.settle();
        assert_eq!(names(&snapshot).len(), 2);
        let got = silence(&snapshot).unwrap_or_else(|| panic!("{:?}", snapshot.state));
        assert_eq!(std::mem::discriminant(got), std::mem::discriminant(wanted));
        assert_eq!(codes(&snapshot), [code]);
        assert!(snapshot.is_known());
    };
    let back = |folder: &mut Folder| {
        let snapshot = folder.settle();
        assert_eq!((names(&snapshot).len(), &snapshot.state), (2, &SourceState::Synced));
    };
    fs::rename(&root, &aside).unwrap();
    kept(&mut folder, &Silence::Vanished, "V0202");
    fs::create_dir(&root).unwrap();
    kept(&mut folder, &Silence::Empty, "V0202");
    fs::remove_dir(&root).unwrap();
    fs::write(&root, "a file in place of the folder").unwrap();
    kept(&mut folder, &Silence::Unreadable(String::new()), "V0201");
    fs::remove_file(&root).unwrap();
    fs::rename(&aside, &root).unwrap();
    back(&mut folder);
    // A folder below that cannot be entered: a loop of links is one for root as well.
    fs::rename(root.join("below"), &aside).unwrap();
    symlink("below", root.join("below")).unwrap();
    kept(&mut folder, &Silence::Unreadable(String::new()), "V0201");
    fs::remove_file(root.join("below")).unwrap();
    fs::rename(&aside, root.join("below")).unwrap();
    back(&mut folder);
}

#[test]
fn before_the_first_complete_reading_absence_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    fs::create_dir(&one).unwrap();
    fs::write(one.join("a.yaml"), service("cart", 80)).unwrap();
    let mut source = FolderSource::new(vec![one, two.clone()]);
    source.poll();
    assert_eq!(source.snapshot().state, SourceState::Starting);
    assert!(!source.snapshot().is_known());
    assert_eq!(codes(&source.snapshot()), ["V0202"]);
    fs::create_dir(&two).unwrap();
    source.poll();
    assert_eq!(source.snapshot().state, SourceState::Starting);
    fs::write(two.join("b.yaml"), "# nothing yet\n").unwrap();
    source.poll();
    assert_eq!(source.snapshot().state, SourceState::Synced);
    assert_eq!(names(&source.snapshot()), ["Service cart"]);
}

#[test]
fn an_object_that_moves_to_another_file_is_there_once_and_all_the_time() {
    let mut folder = Folder::with(&[("a.yaml", service("cart", 80)), ("z.yaml", service("pay", 80))]);
    fs::rename(folder.path("a.yaml"), folder.path("b.yaml")).unwrap();
    for _ in 0..3 {
        let snapshot = folder.look();
        assert_eq!((names(&snapshot), codes(&snapshot)), (vec!["Service cart".into(), "Service pay".into()], vec![]));
    }
    let moved = format!("{}---\n{}", service("pay", 80), service("cart", 81));
    folder.write("z.yaml", &moved);
    folder.write("b.yaml", "# moved\n");
    for _ in 0..3 {
        let snapshot = folder.look();
        assert_eq!((names(&snapshot).len(), codes(&snapshot)), (2, vec![]), "{:?}", snapshot.diagnostics);
        assert!(snapshot.objects.iter().any(|o| matches!(&o.kind, Kind::Service(s) if s.ports[0].port == 81)));
    }
    folder.write("c.yaml", &service("cart", 82));
    let snapshot = folder.settle();
    assert_eq!(snapshot.diagnostics.iter().filter(|d| d.code == "V0101").count(), 1, "twice on purpose is told");
}

fn exports(names: &[&str]) -> String {
    names.iter().map(|name| export(name) + "---\n").collect()
}

#[test]
fn a_mass_loss_of_intent_is_held_and_the_rest_goes_on() {
    let mut folder = Folder::with(&[
        ("a.yaml", exports(&["a", "b", "c"])),
        ("b.yaml", service("cart", 80) + "---\n" + &export("d")),
    ]);
    folder.remove("a.yaml");
    folder.write("b.yaml", &(service("pay", 80) + "---\n" + &export("d")));
    let snapshot = folder.settle();
    assert_eq!(
        names(&snapshot),
        ["Service pay", "ServiceExport a", "ServiceExport b", "ServiceExport c", "ServiceExport d"]
    );
    let held = snapshot.held.clone().unwrap();
    assert_eq!((held.objects.len(), held.of), (3, 4));
    assert_eq!(codes(&snapshot), ["V0205"]);
    // What returns is let go by itself; what is left stays held, however little.
    folder.write("c.yaml", &exports(&["a", "b"]));
    let snapshot = folder.settle();
    assert_eq!(snapshot.held.as_ref().map(|held| held.objects.len()), Some(1));
    assert_eq!(names(&snapshot).len(), 5);
    folder.write("d.yaml", &exports(&["c"]));
    let snapshot = folder.settle();
    assert_eq!((snapshot.held.clone(), names(&snapshot).len()), (None, 5));
}

#[test]
fn a_held_loss_is_let_go_by_confirmation_and_only_that_one() {
    let mut folder = Folder::with(&[("a.yaml", exports(&["a", "b", "c"])), ("b.yaml", service("cart", 80))]);
    let confirm = folder.source.confirm();
    confirm.confirm();
    folder.look();
    folder.write(CONFIRM_FILE, "");
    folder.remove("a.yaml");
    let snapshot = folder.settle();
    assert_eq!(snapshot.held.as_ref().map(|h| h.objects.len()), Some(3), "confirmed before it was lost");
    for _ in 0..3 {
        folder.look();
    }
    assert_eq!(names(&folder.source.snapshot()).len(), 4);
    confirm.confirm();
    let snapshot = folder.look();
    assert_eq!((names(&snapshot), snapshot.held), (vec!["Service cart".into()], None));

    folder.write("a.yaml", &exports(&["a", "b", "c"]));
    folder.settle();
    folder.write("a.yaml", "# none\n");
    assert!(folder.settle().held.is_some());
    folder.remove(CONFIRM_FILE);
    assert!(folder.settle().held.is_some());
    folder.write(CONFIRM_FILE, "");
    let snapshot = folder.look();
    assert_eq!((names(&snapshot), snapshot.held), (vec!["Service cart".into()], None));
}

#[tokio::test(start_paused = true)]
async fn a_loss_file_by_file_within_two_seconds_is_one_loss_and_slower_ones_are_statements() {
    let files: Vec<(String, String)> = (0..6).map(|n| (format!("{n}.yaml"), export(&format!("e{n}")))).collect();
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let mut folder = Folder::with(&files);
    for n in 0..3 {
        folder.remove(&format!("{n}.yaml"));
        folder.settle();
        tokio::time::advance(Duration::from_secs(3)).await;
    }
    assert_eq!(names(&folder.settle()).len(), 3, "one after the other");
    folder.write("0.yaml", &files[0].1);
    folder.write("1.yaml", &files[1].1);
    folder.settle();
    for n in [0, 1, 3] {
        folder.remove(&format!("{n}.yaml"));
        folder.settle();
        tokio::time::advance(Duration::from_millis(300)).await;
    }
    let snapshot = folder.settle();
    assert_eq!(snapshot.held.as_ref().map(|h| h.objects.len()), Some(3));
    assert_eq!(names(&snapshot).len(), 5, "those that went first are back");
}

#[tokio::test(start_paused = true)]
async fn the_watch_tells_of_every_change_and_ends_with_its_last_receiver() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml");
    fs::write(&file, service("cart", 80)).unwrap();
    let mut snapshots = veer_source::watch(vec![dir.path().to_owned()]);
    assert_eq!(port(&snapshots.borrow_and_update()), 80);
    fs::write(&file, service("cart", 81)).unwrap();
    let begun = tokio::time::Instant::now();
    tokio::time::timeout(Duration::from_secs(10), snapshots.changed()).await.unwrap().unwrap();
    assert!(begun.elapsed() <= POLL, "{:?}", begun.elapsed());
    let snapshot = snapshots.borrow_and_update().clone();
    assert_eq!((port(&snapshot), snapshot.generation), (81, 2));
    fs::write(&file, service("cart", 81)).unwrap();
    tokio::time::timeout(Duration::from_secs(10), snapshots.changed()).await.expect_err("nothing changed");
    drop(snapshots);
    tokio::time::timeout(Duration::from_secs(10), async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0 {
            tokio::time::sleep(POLL).await;
        }
    })
    .await
    .expect("the watch goes on without anybody");
    assert!(Path::new(&file).exists());
}
