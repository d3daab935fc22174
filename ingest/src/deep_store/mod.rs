//! Copies of files that never change, in a directory or a bucket that outlives this machine: what is missing here, or damaged, is fetched from there.
//!
//! ```text
//! file:///mnt/deep                        a directory, of a network file system, say
//! s3://bucket/prefix                      S3, and what speaks its protocol; keys, region, endpoint as AWS_… of the environment
//!
//! <url>/<server>/pipelines/<id>/<file>.<crc-32c>              state of a checkpoint (`pipeline/run/copies.rs`)
//! <url>/<server>/tables/<id>/<partition>/<file>.<crc-32c>     a segment (`segments.rs`)
//! ```
//!
//! A name says what the content is, so nothing is ever written over, and who writes one twice writes the same. All calls block, and are tried again for ten seconds.

pub(crate) mod segments;

use std::{
    fmt, fs,
    io::{self, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use object_store::{
    BackoffConfig, ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig, WriteMultipart,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path as ObjectPath,
};
use parking_lot::Mutex;
use tidemill_storage::Error as StorageError;
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    runtime::Handle,
    sync::watch,
};

use crate::{Error, Result};

/// How long a call is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one try may take: parts are of at most this many bytes, and a line that needs longer for one is none.
const TRY: Duration = Duration::from_secs(30);
const PART_BYTES: usize = 8 << 20;
/// What may be under way of one file.
const PARTS: usize = 4;

/// A folder of a deep store.
#[derive(Clone)]
pub struct DeepStore {
    store: Arc<dyn ObjectStore>,
    /// Of a directory: where files are to be made durable, which the library does not do.
    local: Option<Arc<LocalFileSystem>>,
    root: ObjectPath,
    url: Arc<str>,
    tokio: Handle,
    shared: Arc<Shared>,
}

/// What all folders of a store share.
struct Shared {
    closing: watch::Sender<bool>,
    status: Mutex<StoreStatus>,
}

/// What was done with a store since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    pub copied: u64,
    pub copied_bytes: u64,
    pub fetched: u64,
    pub fetched_bytes: u64,
    pub failures: u64,
    /// Of the last call, if that failed.
    pub error: Option<String>,
}

impl fmt::Debug for DeepStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeepStore({}, {})", self.url, self.root)
    }
}

/// Whether a URL can be used, before anything is asked of it.
pub fn check(url: &str) -> Result<(), String> {
    parse(url).map(|_| ())
}

enum Place {
    Directory(ObjectPath),
    Bucket { name: String, prefix: ObjectPath },
}

fn parse(url: &str) -> Result<Place, String> {
    let path = |text: &str| {
        ObjectPath::from_url_path(text).map_err(|error| format!("'{url}' has no path that can be used: {error}"))
    };
    if let Some(rest) = url.strip_prefix("file://") {
        return match rest.starts_with('/') {
            true => Ok(Place::Directory(path(rest)?)),
            false => Err(format!("'{url}' names no absolute directory: write file:///mnt/deep")),
        };
    }
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(format!(
            "'{url}' is neither a directory nor a bucket: write file:///mnt/deep or s3://bucket/prefix"
        ));
    };
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    match name.is_empty() {
        true => Err(format!("'{url}' names no bucket: write s3://bucket/prefix")),
        false => Ok(Place::Bucket { name: name.to_owned(), prefix: path(prefix)? }),
    }
}

impl DeepStore {
    /// The store at a URL. Asks nothing of it yet.
    pub fn open(url: &str, tokio: Handle) -> Result<Self> {
        let unfit = |message: String| Error::Definition { message, hint: None };
        let (store, local, root): (Arc<dyn ObjectStore>, _, _) = match parse(url).map_err(unfit)? {
            Place::Directory(root) => {
                let local = Arc::new(LocalFileSystem::new());
                (Arc::clone(&local) as _, Some(local), root)
            }
            Place::Bucket { name, prefix } => {
                let retries = RetryConfig {
                    backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
                    retry_timeout: PATIENCE,
                    ..RetryConfig::default()
                };
                let mut builder = AmazonS3Builder::from_env()
                    .with_bucket_name(name)
                    .with_retry(retries)
                    .with_client_options(ClientOptions::new().with_timeout(TRY).with_connect_timeout(PATIENCE));
                // Who names an endpoint without TLS wants it so.
                let endpoints = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
                let endpoint = endpoints.iter().find_map(|key| builder.get_config_value(key));
                if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
                    builder = builder.with_allow_http(true);
                }
                let store = builder.build().map_err(|error| unfit(format!("'{url}' cannot be used: {error}")))?;
                (Arc::new(store) as _, None, prefix)
            }
        };
        let shared = Arc::new(Shared { closing: watch::Sender::new(false), status: Mutex::default() });
        Ok(Self { store, local, root, url: url.trim_end_matches('/').into(), tokio, shared })
    }

    /// As it was written.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A folder in it.
    pub fn folder(&self, name: impl fmt::Display) -> Self {
        Self { root: self.root.clone().join(name.to_string()), ..self.clone() }
    }

    fn location(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    /// Copies some bytes of a file, durable at return.
    pub fn put(&self, name: &str, file: &Path, range: Range<u64>) -> Result<()> {
        fail::fail_point!("deep_store::put", |_| Err(Error::Unavailable("failpoint deep_store::put".into())));
        let location = self.location(name);
        let wanted = range.end - range.start;
        let copied = self.call("copying a file to", name, async {
            let mut from = tokio::fs::File::open(file).await?;
            from.seek(io::SeekFrom::Start(range.start)).await?;
            self.copy(from.take(wanted), wanted, &location).await?;
            Ok(self.sync(&location)?)
        });
        copied?;
        let mut status = self.shared.status.lock();
        status.copied += 1;
        status.copied_bytes += wanted;
        Ok(())
    }

    async fn copy(
        &self,
        mut from: tokio::io::Take<tokio::fs::File>,
        bytes: u64,
        to: &ObjectPath,
    ) -> Result<(), BoxError> {
        let mut part = vec![0; PART_BYTES.min(bytes as usize)];
        if bytes <= PART_BYTES as u64 {
            from.read_exact(&mut part).await?;
            self.store.put(to, part.into()).await?;
            return Ok(());
        }
        let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(to).await?, PART_BYTES);
        let mut left = bytes;
        while left > 0 {
            let wanted = (PART_BYTES as u64).min(left) as usize;
            let read = from.read_exact(&mut part[..wanted]).await.map_err(BoxError::from);
            let room = upload.wait_for_capacity(PARTS - 1).await.map_err(BoxError::from);
            if let Err(error) = read.and(room) {
                let _ = upload.abort().await;
                return Err(error);
            }
            upload.write(&part[..wanted]);
            left -= wanted as u64;
        }
        upload.finish().await?;
        Ok(())
    }

    /// Of a directory: what the library wrote, made durable with its name.
    fn sync(&self, location: &ObjectPath) -> io::Result<()> {
        let Some(local) = &self.local else { return Ok(()) };
        let path = local.path_to_filesystem(location)?;
        fs::File::open(&path)?.sync_all()?;
        // Any folder may be new.
        path.ancestors().skip(1).take(location.parts_count()).try_for_each(|folder| fs::File::open(folder)?.sync_all())
    }

    /// Brings objects here, one after the other in one file, which is whole and durable once it is there.
    pub fn fetch(&self, names: &[String], to: &Path) -> Result<()> {
        fail::fail_point!("deep_store::fetch", |_| Err(Error::Unavailable("failpoint deep_store::fetch".into())));
        let temporary = with_ending(to, ".fetched.tmp");
        let mut file = fs::File::create(&temporary)
            .map_err(|error| StorageError::io("making a file to fetch into", &temporary, &error))?;
        let mut bytes = 0;
        for name in names {
            let fetched = self.call("fetching a file from", name, async {
                let mut chunks = self.store.get(&self.location(name)).await?.into_stream();
                while let Some(chunk) = chunks.try_next().await? {
                    file.write_all(&chunk)?;
                    bytes += chunk.len() as u64;
                }
                Ok(())
            });
            if let Err(error) = fetched {
                let _ = fs::remove_file(&temporary);
                return Err(error);
            }
        }
        let named = file.sync_all().and_then(|()| fs::rename(&temporary, to)).and_then(|()| match to.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        });
        named.map_err(|error| StorageError::io("keeping a file that was fetched", to, &error))?;
        let mut status = self.shared.status.lock();
        status.fetched += 1;
        status.fetched_bytes += bytes;
        Ok(())
    }

    /// Names of all objects, with those of folders in it, and their bytes.
    pub fn list(&self) -> Result<Vec<(String, u64)>> {
        let objects: Vec<ObjectMeta> =
            self.call("listing", "", async { Ok(self.store.list(Some(&self.root)).try_collect().await?) })?;
        let name = |object: &ObjectMeta| {
            let parts = object.location.prefix_match(&self.root)?;
            let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
            Some((parts.join("/"), object.size))
        };
        Ok(objects.iter().filter_map(name).collect())
    }

    /// Deletes objects; one that is not there is deleted.
    pub fn delete(&self, names: &[String]) -> Result<()> {
        let locations: Vec<_> = names.iter().map(|name| Ok(self.location(name))).collect();
        self.call("deleting files of", names.first().map_or("", String::as_str), async {
            let mut deleted = self.store.delete_stream(futures::stream::iter(locations).boxed());
            while let Some(one) = deleted.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
    }

    /// What was done since the start.
    pub fn status(&self) -> StoreStatus {
        self.shared.status.lock().clone()
    }

    /// Ends calls that are under way, and those to come.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    fn call<T>(&self, action: &str, name: &str, work: impl Future<Output = Result<T, BoxError>>) -> Result<T> {
        let mut closing = self.shared.closing.subscribe();
        let done = self.tokio.block_on(async {
            tokio::select! {
                done = work => done,
                _ = closing.wait_for(|closing| *closing) => Err("the server is shutting down".into()),
            }
        });
        let mut status = self.shared.status.lock();
        status.error = None;
        done.map_err(|error| {
            let message = format!("{action} the deep store {} failed: {name}: {error}", self.url);
            status.failures += 1;
            status.error = Some(message.clone());
            Error::Unavailable(message)
        })
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(url: &str, runtime: &tokio::runtime::Runtime) -> DeepStore {
        DeepStore::open(url, runtime.handle().clone()).unwrap()
    }

    #[test]
    fn files_come_back_as_they_were() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("deep");
        let all = store(&format!("file://{}", deep.display()), &runtime);
        let (store, other) = (all.folder(7).folder("a b"), all.folder(8));
        let (file, back) = (directory.path().join("file"), directory.path().join("back"));
        // Of several parts, where the store takes parts.
        let bytes: Vec<u8> = (0..PART_BYTES * 2 + 77).map(|at| (at % 251) as u8).collect();
        fs::write(&file, &bytes).unwrap();
        store.put("whole.1", &file, 0..bytes.len() as u64).unwrap();
        store.put("parts/2", &file, 100..200).unwrap();
        store.put("parts/1", &file, 0..100).unwrap();
        store.put("empty", &file, 5..5).unwrap();
        other.put("whole.1", &file, 0..1).unwrap();
        store.fetch(&["whole.1".into()], &back).unwrap();
        assert!(fs::read(&back).unwrap() == bytes);
        store.fetch(&["parts/1".into(), "parts/2".into()], &back).unwrap();
        assert_eq!(fs::read(&back).unwrap(), bytes[..200]);
        let mut names = store.list().unwrap();
        names.sort();
        let expected = [("empty", 0), ("parts/1", 100), ("parts/2", 100), ("whole.1", bytes.len() as u64)];
        assert_eq!(names, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
        store.delete(&["parts/1".into(), "none".into(), "empty".into()]).unwrap();
        assert_eq!(store.list().unwrap().len(), 2);
        assert_eq!(all.list().unwrap().len(), 3);
        // What cannot be had leaves what is there as it is.
        let error = store.fetch(&["whole.1".into(), "parts/1".into()], &back).unwrap_err().to_string();
        assert!(error.contains("parts/1") && error.contains("file://"), "{error}");
        assert_eq!(fs::read(&back).unwrap(), bytes[..200]);
        let error = store.put("long", &file, 0..bytes.len() as u64 + 1).unwrap_err().to_string();
        assert!(error.contains("early eof"), "{error}");
        assert_eq!(store.list().unwrap().len(), 2);
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = store(&format!("file://{}/none", directory.path().display()), &runtime);
        assert_eq!(store.list().unwrap(), []);
        store.delete(&["a".into()]).unwrap();
    }

    #[test]
    fn urls_that_are_none_are_told() {
        for (url, wrong) in [
            ("file://deep", "no absolute directory"),
            ("/mnt/deep", "neither a directory nor a bucket"),
            ("gs://bucket", "neither a directory nor a bucket"),
            ("s3:///deep", "no bucket"),
            ("s3://bucket/a//b", "no path that can be used"),
        ] {
            let message = check(url).unwrap_err();
            assert!(message.contains(wrong) && message.contains(url), "{url}: {message}");
        }
        check("s3://bucket").unwrap();
        check("file:///mnt/deep").unwrap();
    }
}
