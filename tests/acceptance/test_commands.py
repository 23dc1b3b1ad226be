"""The command line as people and programs use it, against a yard that `modelyard up` runs."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import redis
from waiting import eventually

from modelyard import __version__

MODELYARD = [sys.executable, "-m", "producer.cli"]
TEXT = "Summarize: The yard was full. Two trains waited. The third one left at noon."


def run(
    *arguments: str, env: Mapping[str, str] | None = None, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
    return subprocess.run(
        [*MODELYARD, *arguments],
        env={**clean, **(env or {})},
        input=input,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a program that uses a running yard."""
    state = tmp_path_factory.mktemp("state")
    env = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
    up = subprocess.Popen(
        [*MODELYARD, "up", "--json", "--no-flower", "--state-dir", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={key: value for key, value in env.items() if key != "MODELYARD_BROKER_URL"},
    )
    assert up.stdout is not None
    try:
        addresses = json.loads(up.stdout.readline())
        yield {"MODELYARD_BROKER_URL": addresses["broker_url"]}
    finally:
        up.send_signal(signal.SIGINT)
        said = up.communicate(timeout=60)
    assert up.returncode == 0, said


def test_a_request_is_submitted_and_its_answer_fetched_later(broker: dict[str, str]) -> None:
    submitted = run("submit", TEXT, env=broker)
    assert submitted.returncode == 0
    fetched = run("result", submitted.stdout.strip(), "--wait", "--json", env=broker)

    answer = json.loads(fetched.stdout)
    assert answer["id"] == submitted.stdout.strip()
    assert answer["model"] == "local-small"
    assert answer["extractive"]


def test_waiting_prints_the_answer_and_nothing_else_on_standard_output(
    broker: dict[str, str],
) -> None:
    done = run("submit", "-", "--wait", env=broker, input=TEXT)

    assert done.returncode == 0
    assert done.stdout.startswith("The yard was full.")
    assert "extractive, local-small" in done.stderr
    assert "[n]: sentence n of the document" in done.stderr
    assert "extractive" not in done.stdout


def test_a_dead_letter_is_an_error_with_its_reason(broker: dict[str, str]) -> None:
    done = run("submit", "hello", "--model", "small", "--wait", env=broker)

    assert done.returncode == 1
    assert "OPENAI_API_KEY is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dead_letter_as_json_has_its_reason_and_attempts(broker: dict[str, str]) -> None:
    done = run("submit", "hello", "--model", "small", "--wait", "--json", env=broker)
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert (said["status"], said["error"]["reason"], said["attempts"]) == ("failed", "invalid", [])
    assert "OPENAI_API_KEY is not set" in said["error"]["message"]

    fetched = run("result", said["id"], "--json", env=broker)
    assert (fetched.returncode, json.loads(fetched.stdout)) == (1, said)


def test_a_timeout_as_json_is_pending(broker: dict[str, str]) -> None:
    done = run("result", "nobody", "--wait", "--timeout-s", "0.1", "--json", env=broker)
    assert (done.returncode, json.loads(done.stdout)) == (1, {"id": "nobody", "status": "pending"})


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--model", "local-smal"), "unknown model 'local-smal' (did you mean 'local-small'?)"),
        (("--route", "defalt"), "unknown route 'defalt' (did you mean 'default'?)"),
    ],
)
def test_an_unknown_name_is_refused_at_once_with_a_suggestion(
    option: tuple[str, str], said: str
) -> None:
    nowhere = {"MODELYARD_BROKER_URL": "redis://127.0.0.1:1/0"}
    for command in (("submit", "hello"), ("summarize", __file__)):
        done = run(*command, *option, env=nowhere)
        assert done.returncode == 2
        assert said in done.stderr
        assert "MODELYARD_CATALOG" in done.stderr


def test_a_full_redis_is_one_message_and_exit_code_3(redis_url: str, tmp_path: Path) -> None:
    env = {"MODELYARD_BROKER_URL": redis_url}
    (tmp_path / "a.txt").write_text(TEXT)
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", 1)
        try:
            ended = [
                run("submit", "hello", env=env),
                run("models", env=env),
                run("summarize", str(tmp_path), "-o", str(tmp_path / "out.jsonl"), env=env),
            ]
        finally:
            client.config_set("maxmemory", 0)
    assert [done.returncode for done in ended] == [3, 3, 3]
    for done in ended:
        assert "Redis has no memory left" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["check", "check --json", "models", "--help"])
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_standard_output_that_can_t_be_written_is_no_traceback(command: str, where: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{shlex.join(MODELYARD)} {command} {where}"],
        env={key: value for key, value in os.environ.items() if key != "MODELYARD_BROKER_URL"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if command != "--help":
        assert done.returncode == 1
        assert "standard output" in done.stderr


def test_the_version_and_the_exit_codes_are_told() -> None:
    assert run("--version").stdout == f"modelyard {__version__}\n"
    assert "Exit codes: 0 all is well" in run("--help").stdout


def test_a_result_that_is_not_there_yet_says_so(broker: dict[str, str]) -> None:
    done = run("result", "never-heard-of", env=broker)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no outcome yet" in done.stderr

    as_json = run("result", "never-heard-of", "--json", env=broker)
    assert json.loads(as_json.stdout) == {"id": "never-heard-of", "status": "pending"}


def test_models_shows_the_workers(broker: dict[str, str]) -> None:
    def states() -> dict[str, dict[str, object]]:
        listed = json.loads(run("models", "--json", env=broker).stdout)
        return {state["name"]: state for state in listed}

    eventually(lambda: states()["local-small"]["workers"] == 1, timeout_s=30)
    small = states()["small"]
    assert (small["workers"], small["disabled"]) == (0, "OPENAI_API_KEY is not set")
    table = run("models", env=broker).stdout
    assert "in flight" in table
    assert "small is off: OPENAI_API_KEY is not set" in table


def test_celery_s_own_commands_see_the_yard(broker: dict[str, str]) -> None:
    pinged = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "modelyard", "inspect", "ping"],
        env={**os.environ, **broker},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "router@" in pinged.stdout
    assert "local-large@" in pinged.stdout


def test_explain_decides_and_starts_nothing() -> None:
    done = run("explain", TEXT, "--json")

    decision = json.loads(done.stdout)
    assert decision["intent"] == "summarize"
    assert [step["model"] for step in decision["plan"]["steps"]] == ["local-small", "local-large"]
    assert "keyword 'summarize'" in run("explain", TEXT).stdout


TRIED = """
models: [{name: small, provider: extractive}, {name: large, provider: extractive}]
routes:
  default:
    rules: [{when: {metadata: {tier: vip}}, intent: vip, models: [large]}]
    otherwise: [small]
    experiments: [{name: try-large, of: small, to: large, percent: 100}]
"""


def test_explain_knows_metadata_and_experiments_that_were_taken_back(
    redis_url: str, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(TRIED)
    env = {"MODELYARD_CATALOG": str(catalog), "MODELYARD_BROKER_URL": redis_url}

    def first_model(*options: str, **more: str) -> str:
        said = json.loads(run("explain", "hello", *options, "--json", env={**env, **more}).stdout)
        return str(said["plan"]["steps"][0]["model"])

    assert first_model("--meta", "tier=vip") == "large"
    assert first_model() == "large"
    assert run("experiments", "back", "try-large", env=env).returncode == 0
    assert first_model() == "small"
    gone = "redis://127.0.0.1:1/0"
    assert first_model(MODELYARD_BROKER_URL=gone) == "large"
    told = run("explain", "hello", env={**env, "MODELYARD_BROKER_URL": gone}).stderr
    assert "how experiments stand is not known" in told


@pytest.mark.parametrize("command", [("explain", "hello"), ("submit", "hello"), ("models",)])
def test_a_wrong_address_of_the_broker_is_not_shown(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """Where a password has a slash, what is before it is taken for a port."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(TRIED)
    url = "redis://:secret/word@127.0.0.1:1/0"
    done = run(*command, env={"MODELYARD_CATALOG": str(catalog), "MODELYARD_BROKER_URL": url})
    assert done.returncode in {1, 2}
    assert "MODELYARD_BROKER_URL is no Redis address such as" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_models_without_their_key_have_no_worker_and_up_says_so(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        "models: [{name: big, provider: openai, "
        'endpoints: [{base_url: "http://127.0.0.1:1", api_key: "${NO_SUCH_KEY}"}]}]\n'
        "routes: {default: {otherwise: [big]}}\n"
    )
    env = {"MODELYARD_CATALOG": str(catalog), "MODELYARD_STATE_DIR": str(tmp_path / "state")}

    worker = run("worker", "model", "big", env=env)
    assert worker.returncode == 2
    assert "NO_SUCH_KEY is not set" in worker.stderr
    up = run("up", env=env)
    assert up.returncode == 2
    assert "no model of the catalog can be called here" in up.stderr
    assert "NO_SUCH_KEY" in up.stderr


LIMITED = """
models:
  - {name: small, provider: extractive, quality: 0.5}
  - {name: large, provider: extractive, quality: 0.9, regions: [eu]}
routes: {default: {otherwise: [small, large]}}
"""


@pytest.mark.parametrize(
    "limit",
    [("--quality-floor", "0.8"), ("--region", "eu")],
)
def test_limits_can_be_given_to_explain(tmp_path: Path, limit: tuple[str, str]) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(LIMITED)
    env = {"MODELYARD_CATALOG": str(catalog)}

    def models(*options: str) -> list[str]:
        said = json.loads(run("explain", "hello", *options, "--json", env=env).stdout)
        return [step["model"] for step in said["plan"]["steps"]]

    assert models() == ["small", "large"]
    assert models(*limit) == ["large"]
    assert models("--deadline-s", "60") == ["small", "large"]


def test_limits_can_be_given_to_submit(redis_url: str, store: redis.Redis) -> None:
    env = {"MODELYARD_BROKER_URL": redis_url}
    options = ("--quality-floor", "0.5", "--max-cost-usd", "0.01", "--region", "eu")
    assert run("submit", "hello", *options, env=env).returncode == 0

    (message,) = store.lrange("requests", 0, -1)
    body = json.loads(json.loads(message)["body"])
    expected = {"quality_floor": 0.5, "max_cost_usd": 0.01, "region": "eu"}
    assert body[0][0]["limits"] == expected


def test_explain_tells_what_can_t_be_routed() -> None:
    done = run("explain", "hello", "--route", "defalt")
    assert done.returncode == 1
    assert "unknown route 'defalt' (did you mean 'default'?)" in done.stderr


def test_without_a_broker_the_way_out_is_told() -> None:
    done = run("submit", "hello", env={"MODELYARD_BROKER_URL": ""})
    assert done.returncode == 2
    assert "modelyard up" in done.stderr
    gone = run("submit", "hello", env={"MODELYARD_BROKER_URL": "redis://127.0.0.1:1/0"})
    assert gone.returncode == 3
    assert "can't reach the broker" in gone.stderr
    assert "Traceback" not in gone.stderr


LEARNED_CATALOG = """
models: [{name: local, provider: extractive}]
routes:
  default: {classifier: builtin, intents: {translatin: [local], creative: [local]},
    otherwise: [local]}
  other: {classifier: mine, otherwise: [local]}
"""


def test_check_names_file_line_key_and_suggestion(tmp_path: Path) -> None:
    catalog = tmp_path / "mine.yaml"
    catalog.write_text(
        "models:\n  - name: a\n    provider: extractiv\nroutes:\n  default:\n    otherwise: [b]\n"
    )

    done = run("check", str(catalog))

    assert done.returncode == 2
    assert f"{catalog}:3: model 'a': unknown provider 'extractiv'" in done.stderr
    assert "did you mean 'extractive'?" in done.stderr
    assert f"{catalog}:6: route 'default'" in done.stderr
    assert json.loads(run("check", str(catalog), "--json").stdout)["ok"] is False
    assert run("check").returncode == 0


def test_check_warns_of_models_that_are_not_there_and_intents_that_they_lack(
    tmp_path: Path,
) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(LEARNED_CATALOG)

    done = run("check", str(catalog), "--json")
    said = json.loads(done.stdout)

    assert done.returncode == 0
    assert said["ok"]
    assert len(said["warnings"]) == 2
    (intent,) = [each for each in said["warnings"] if each.startswith("route 'default'")]
    assert "knows no intent 'translatin' (did you mean 'translate'?)" in intent
    (gone,) = [each for each in said["warnings"] if each.startswith("classifier 'mine'")]
    assert "model.json" in gone
    assert f"warning: {intent}" in run("check", str(catalog)).stderr


def test_what_a_function_of_embeddings_prints_is_in_nobody_s_way(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "print('loading')\n"
        "def embed(texts):\n"
        "    print('asked')\n"
        "    return [[float('poem' in text), 1.0] for text in texts]\n"
    )
    rows = tmp_path / "rows.jsonl"
    words = {"poem": "creative", "sonnet": "creative", "sum": "math", "total": "math"}
    texts = [(f"{start} {word}", words[word]) for start in ("a", "my", "the") for word in words]
    rows.write_text("".join(json.dumps({"text": t, "intent": i}) + "\n" for t, i in texts))
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        "models: [{name: small, provider: extractive}]\n"
        "routes: {default: {classifier: mine, embeddings: 'chatty:embed', otherwise: [small]}}\n"
    )
    env = {"MODELYARD_CATALOG": str(catalog), "PYTHONPATH": str(tmp_path)}

    mine, place = str(tmp_path / "mine"), "chatty:embed"
    trained = run("train", str(rows), "-o", mine, "--embeddings", place, "--json", env=env)
    assert json.loads(trained.stdout)["intents"]["rows"] == 12
    assert "asked" in trained.stderr
    assert json.loads(run("check", "--json", env=env).stdout)["warnings"] == []
    assert "intent" in json.loads(run("explain", "a poem", "--json", env=env).stdout)


def test_a_broken_catalog_stops_every_command_with_its_line(tmp_path: Path) -> None:
    catalog = tmp_path / "mine.yaml"
    catalog.write_text("models: []\nroutes: {}\n")
    done = run("explain", "hello", env={"MODELYARD_CATALOG": str(catalog)})
    assert done.returncode != 0
    assert f"{catalog}:1" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_worker_prints_the_celery_command_that_it_becomes(broker: dict[str, str]) -> None:
    worker = subprocess.Popen(
        [*MODELYARD, "worker", "model", "local-small", "local-large"],
        env={**os.environ, **broker},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stderr is not None
        first = worker.stderr.readline()
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=60)
    assert first.startswith("$ celery -A model_workers worker")
    assert "-Q model.local-small,model.local-large" in first


def test_worker_refuses_a_model_that_is_not_in_the_catalog(broker: dict[str, str]) -> None:
    done = run("worker", "model", "local-smal", env=broker)
    assert done.returncode != 0
    assert "did you mean 'local-small'?" in done.stderr


def test_celery_refuses_the_queue_of_an_unknown_model(broker: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "model_workers", "worker", "-Q", "model.smal"],
        env={**os.environ, **broker},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "unknown model 'smal' (did you mean 'small'?)" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["up", "summarize", "submit", "result", "explain", "models", "check", "batch", "worker"],
)
def test_every_command_explains_itself(command: str) -> None:
    helped = run(command, "--help")
    assert helped.returncode == 0
    assert "Usage" in helped.stdout


def test_metadata_that_is_no_pair_is_refused(broker: dict[str, str]) -> None:
    done = run("submit", "hello", "--meta", "tenant", env=broker)
    assert done.returncode == 2
    assert "KEY=VALUE" in done.stderr


def test_a_request_is_known_by_its_key_and_can_be_cancelled(redis_url: str) -> None:
    env = {"MODELYARD_BROKER_URL": redis_url}  # and no workers
    first = run("submit", "hello", "--idempotency-key", "k", "--lane", "batch", env=env)
    again = run("submit", "hello", "--idempotency-key", "k", "--lane", "batch", env=env)
    assert first.returncode == again.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    id = first.stdout.strip()

    done = run("cancel", id, "--json", env=env)
    assert json.loads(done.stdout) == {"id": id, "cancelled": True}
    late = run("cancel", id, env=env)
    assert late.returncode == 1
    assert "it has its outcome already" in late.stderr


def test_a_request_takes_the_id_that_it_is_given(redis_url: str) -> None:
    env = {"MODELYARD_BROKER_URL": redis_url}  # and no workers
    assert run("submit", "hello", "--id", "mine", env=env).stdout.strip() == "mine"
    cancelled = run("cancel", "mine", env=env)
    assert cancelled.stdout.strip() == "request mine: cancelled", cancelled.stderr
