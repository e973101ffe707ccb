"""Features for tests with containers in three libraries: testcontainers-python 4.15, testcontainers-go, the harness.

The first two are as documented; "–" marks a missing feature. Each row names the tests that prove the feature here.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One feature."""

    wanted: str
    python: str
    go: str
    here: str
    tests: tuple[str, ...]


ROWS = (
    Row(
        "any image, pulled when it is missing",
        "`DockerContainer`",
        "`Run`",
        "`start_container`",
        ("test_an_image_that_can_neither_be_found_nor_pulled_is_named",),
    ),
    Row(
        "an image of a folder",
        "`DockerImage`",
        "`WithDockerfile`",
        "`build_image`, built again only for another content",
        ("test_the_same_content_is_not_built_again_and_another_beside_it",),
    ),
    Row(
        "environment, user, command, mounts, tmpfs, labels",
        "`with_env`, `with_volume_mapping`, `with_tmpfs_mount`, …",
        "`WithEnv`, `WithMounts`, …",
        "settings by name, typed",
        ("test_environment_user_mount_tmpfs_and_labels_reach_the_container",),
    ),
    Row(
        "every other setting of Docker",
        "`with_kwargs`, unchecked",
        "`WithHostConfigModifier`",
        "settings by name; a wrong or doubled one is named",
        ("test_every_setting_of_the_sdk_is_one_and_has_a_type", "test_a_setting_that_is_given_twice_is_named"),
    ),
    Row(
        "working directory, platform",
        "`with_kwargs`",
        "`WithConfigModifier`, `WithImagePlatform`",
        "`working_dir`, `platform`",
        ("test_a_container_has_a_directory_and_a_platform",),
    ),
    Row(
        "environment files",
        "`with_env_file`",
        "–",
        "`env_files`",
        ("test_a_later_file_goes_before_an_earlier_one_and_the_test_before_both",),
    ),
    Row(
        "files before the start",
        "`with_copy_into_container`",
        "`WithFiles`",
        "`files`",
        ("test_files_are_there_when_the_container_starts",),
    ),
    Row(
        "files and directories in",
        "`copy_into_container`",
        "`CopyToContainer`, `CopyDirToContainer`",
        "`copy_in`, with mode and owner",
        ("test_content_and_files_go_in_with_mode_and_owner_and_come_out_as_they_were",),
    ),
    Row(
        "files and directories out",
        "`copy_from_container`, a file",
        "`CopyFileFromContainer`, a file",
        "`copy_out`, `read_file`",
        ("test_a_directory_goes_in_and_out_with_links_and_empty_folders",),
    ),
    Row("a log by stream", "`get_logs`", "`Logs`", "`logs(stdout=…, stderr=…)`", ("test_each_stream_alone_and_both",)),
    Row(
        "a log followed",
        "–",
        "`WithLogConsumers`",
        "`follow`, bounded in time",
        (
            "test_it_is_followed_line_by_line_as_it_comes_until_the_end",
            "test_a_log_that_goes_on_is_followed_no_longer_than_its_limit",
        ),
    ),
    Row(
        "a command with environment, directory and user",
        "`exec(ExecConfig(…))`",
        "`Exec` with options",
        "`exec`",
        ("test_it_has_an_environment_and_a_directory",),
    ),
    Row(
        "a command with a timeout",
        "–",
        "context of the call",
        "`exec(timeout_s=…)`, with what it wrote so far",
        ("test_one_that_takes_too_long_is_given_up_with_what_it_wrote",),
    ),
    Row(
        "ports: of Docker's choice, fixed",
        "`with_exposed_ports`, `with_bind_ports`",
        "`WithExposedPorts`",
        "`ports`, `port_bindings`",
        ("test_a_port_is_published_on_loopback_and_waited_for", "test_a_port_may_be_fixed"),
    ),
    Row(
        "UDP ports",
        '`with_exposed_ports("53/udp")`',
        '`"53/udp"`',
        '`ports=["53/udp"]`',
        ("test_datagrams_reach_a_port_of_dockers_choice",),
    ),
    Row(
        "wait for a port",
        "`PortWaitStrategy`",
        "`ForListeningPort`",
        "`wait_for_port`",
        ("test_a_port_is_published_on_loopback_and_waited_for",),
    ),
    Row(
        "wait for a log, by pattern and count",
        "`LogMessageWaitStrategy`",
        "`ForLog`",
        "`wait_for_log`",
        ("test_a_log_is_waited_for_by_a_pattern_and_so_many_times",),
    ),
    Row(
        "wait for HTTP: status, headers, TLS",
        "`HttpWaitStrategy`",
        "`ForHTTP`",
        "`wait_for_http`",
        ("test_http_is_waited_for_with_a_status_and_headers", "test_http_is_waited_for_by_tls"),
    ),
    Row(
        "wait for a health check",
        "`HealthcheckWaitStrategy`",
        "`ForHealthCheck`",
        "`wait_for_health`, with the last check's output",
        ("test_a_health_check_is_waited_for",),
    ),
    Row("wait for the end", "`wait`", "`ForExit`", "`wait_for_exit`", ("test_its_end_can_be_waited_for",)),
    Row(
        "wait for anything else",
        "`ExecWaitStrategy`, `FileExistsWaitStrategy`",
        "`ForExec`, `ForFile`, `ForSQL`",
        "`wait_until` with any function",
        ("test_a_wait_ends_when_a_container_of_the_test_fails_and_shows_its_log",),
    ),
    Row(
        "a wait ends when the container does, and shows its log",
        "waits for a log",
        "most waits, without the log",
        "every wait",
        ("test_every_wait_ends_with_the_container_and_shows_its_log",),
    ),
    Row(
        "a network, names on it",
        "`Network`, `with_network_aliases`",
        "`network.New`, `WithNetwork`",
        "`create_network`, `aliases`",
        ("test_others_on_its_network_find_it_by_its_aliases",),
    ),
    Row(
        "connected and cut off while it runs",
        "`Network.connect`",
        "–",
        "`network.connect`, `disconnect`",
        ("test_a_container_is_connected_and_cut_off",),
    ),
    Row(
        "a named volume that goes with the test",
        "by name, stays",
        "by name, `RemoveVolumes`",
        "`create_volume`",
        ("test_it_goes_with_the_test", "test_what_one_container_writes_another_one_reads"),
    ),
    Row(
        "one container for a class or a module",
        "by hand, or fixtures of pytest",
        "`TestMain`",
        "`enterClassContext`, `enterModuleContext`",
        ("test_a_failed_test_has_the_log_of_its_classs_container_too",),
    ),
    Row(
        "a service of one's own",
        "a subclass of `DockerContainer`",
        "a module",
        "`ContainerService`",
        ("test_it_answers_and_has_the_settings_of_its_class_and_of_the_test",),
    ),
    Row(
        "PostgreSQL: user, name",
        "`PostgresContainer`",
        "`postgres.Run`",
        "`Layout(role=…, schema=…)`, `create_database(name=…)`",
        ("test_the_role_owns_its_schema_and_is_no_superuser", "test_a_database_may_have_a_name"),
    ),
    Row(
        "PostgreSQL: init scripts, extensions",
        "a mounted folder",
        "`WithInitScripts`",
        "`Layout(setup=…)`",
        ("test_a_setup_may_be_a_file_and_make_extensions_which_a_reset_keeps",),
    ),
    Row(
        "PostgreSQL: clean for each test",
        "–",
        "`Snapshot`, `Restore`",
        "some 5 ms, also for what the test created",
        ("test_whatever_a_test_makes_it_may_make_again",),
    ),
    Row(
        "nothing left after the run, also a killed one",
        "a helper container with Docker's socket",
        "the same",
        "labels, and the next run; no helper",
        ("test_what_a_killed_run_left_goes_with_the_next_and_a_run_beside_it_is_not_touched",),
    ),
    Row(
        "artefacts of a failed test",
        "–",
        "–",
        "logs, tables, streams in a folder",
        ("test_wherever_a_failure_is_it_has_artefacts",),
    ),
    Row(
        "a bad line to a server",
        "–",
        "a Toxiproxy container",
        "`faults.before`, in the process",
        ("test_a_transfer_survives_every_fault_that_loses_nothing",),
    ),
    Row(
        "without a registry",
        "–",
        "–",
        "images of the machine's own packages",
        ("test_without_a_registry_the_base_is_made_here_once_for_all",),
    ),
)

#: Features of the other two that the harness lacks.
ABSENT_HERE = (
    "Docker Compose",
    "some fifty ready-made services each (here: PostgreSQL, Redis, PgBouncer, an image registry)",
    "passwords of databases (every user is trusted here)",
    "names of images replaced by a prefix",
    "containers that outlive their run for the next one",
    "daemons found by themselves (Testcontainers Cloud and Desktop, Podman)",
)
