%% The native tracer's library (beam/native): callbacks of erl_tracer, which the VM calls in traced processes, and what
%% beamtrace_native needs to drain what they record. The library comes over the connection and stands in a file only
%% while it is loaded. Without it every function here raises `beamtrace_nif`.
-module(beamtrace_nif).

-export([status/0, load/2]).
-export([open/4, drain/2, mask/2, filter/3, shut/1, free/1, usage/0]).
-export([layout/4, identity/1, shape/1, args/1, initial_call/3]).
-export([enabled/3, enabled_call/3, enabled_garbage_collection/3, enabled_ports/3, enabled_procs/3, enabled_receive/3]).
-export([enabled_running_ports/3, enabled_running_procs/3, enabled_send/3]).
-export([trace/5, trace_call/5, trace_garbage_collection/5, trace_ports/5, trace_procs/5, trace_receive/5]).
-export([trace_running_ports/5, trace_running_procs/5, trace_send/5]).
-export_type([trace/0]).

-include_lib("kernel/include/file.hrl").

-nifs([open/4, drain/2, mask/2, filter/3, shut/1, free/1, usage/0]).
-nifs([layout/4, identity/1, shape/1, args/1, initial_call/3]).
-nifs([enabled/3, enabled_call/3, enabled_garbage_collection/3, enabled_ports/3, enabled_procs/3, enabled_receive/3]).
-nifs([enabled_running_ports/3, enabled_running_procs/3, enabled_send/3]).
-nifs([trace/5, trace_call/5, trace_garbage_collection/5, trace_ports/5, trace_procs/5, trace_receive/5]).
-nifs([trace_running_ports/5, trace_running_procs/5, trace_send/5]).

-define(STUB, erlang:nif_error(beamtrace_nif)).

-type trace() :: reference().
-type tag() :: atom() | 0.

%% What a client has to know before it sends the library.
-spec status() -> loaded | absent.
status() ->
    try usage() of
        {_, _, _} -> loaded
    catch
        error:beamtrace_nif -> absent
    end.

%% Loads the library and proves that it reads this VM's terms rightly. `Md5` finds damage; whom to trust, the connection decides.
%% (The runtime itself has no SHA-2, and a node need not have the application crypto.)
-spec load(binary(), binary()) -> ok | {error, term()}.
load(Library, Md5) ->
    case {status(), erlang:md5(Library)} of
        %% Proved by whoever loaded it.
        {loaded, _} -> ok;
        {absent, Md5} -> load_from(folders(), Library, no_folder);
        {absent, _} -> {error, bad_hash}
    end.

%% Where a file can be written and its code mapped. A folder on a file system without the right to execute fails in load_nif.
folders() -> [Folder || Folder <- [os:getenv("TMPDIR", "/tmp"), "/tmp", "/dev/shm", "/var/tmp", "."], Folder =/= ""].

load_from([Folder | Folders], Library, _) ->
    Name = "beamtrace-" ++ integer_to_list(rand:uniform(1 bsl 64), 36) ++ integer_to_list(rand:uniform(1 bsl 64), 36),
    Private = filename:join(filename:absname(Folder), Name),
    case write(Private, Library) of
        ok ->
            Result = erlang:load_nif(filename:join(Private, ?MODULE_STRING), 0),
            remove(Private),
            case Result of
                ok -> beamtrace_native_check:check();
                %% Another session was faster.
                {error, {reload, _}} -> beamtrace_native_check:check();
                {error, {Reason, Text}} -> load_from(Folders, Library, {Reason, unicode:characters_to_binary(Text)})
            end;
        {error, Reason} ->
            remove(Private),
            load_from(Folders, Library, {Reason, unicode:characters_to_binary(Folder)})
    end;
load_from([], _, Reason) ->
    {error, Reason}.

write(Private, Library) ->
    first_error([
        fun() -> file:make_dir(Private) end,
        fun() -> file:change_mode(Private, 8#700) end,
        fun() -> private(Private) end,
        fun() -> file:write_file(filename:join(Private, ?MODULE_STRING ".so"), Library, [exclusive, raw]) end
    ]).

first_error([Step | Steps]) ->
    case Step() of
        ok -> first_error(Steps);
        {error, Reason} -> {error, Reason}
    end;
first_error([]) ->
    ok.

%% Nobody may have put anything there between the two steps before.
private(Private) ->
    case {file:read_link_info(Private), file:list_dir(Private)} of
        {{ok, #file_info{type = directory, mode = Mode}}, {ok, []}} when Mode band 8#777 =:= 8#700 -> ok;
        _ -> {error, not_private}
    end.

remove(Private) ->
    _ = file:delete(filename:join(Private, ?MODULE_STRING ".so")),
    _ = file:del_dir(Private),
    ok.

%% A trace: so many rings of so many records; `{Shapes, SchedulerIds, Kinds}`; whose processes are not to be seen. The tracer for the
%% VM is `{beamtrace_nif, State}`; stamps count from `Base`, nanoseconds of monotonic time.
-spec open(
    pos_integer(), pos_integer(), {boolean(), boolean(), non_neg_integer()}, {pid(), node() | undefined, [module()]}
) -> {trace(), State :: non_neg_integer(), Base :: integer()} | {error, full | memory}.
open(_Rings, _Capacity, _What, _Ours) -> ?STUB.

%% Records up to one point in time, with the atoms that they are the first to name.
-spec drain(trace(), pos_integer()) ->
    {
        Count :: non_neg_integer(),
        Records :: binary(),
        Dictionary :: [{non_neg_integer(), atom()}],
        Lost :: non_neg_integer(),
        Filtered :: non_neg_integer(),
        Waiting :: non_neg_integer(),
        Now :: non_neg_integer(),
        News :: [pid() | port()]
    }.
drain(_Trace, _Max) -> ?STUB.

-spec mask(trace(), non_neg_integer()) -> ok.
mask(_Trace, _Kinds) -> ?STUB.

-spec filter(trace(), pid() | port(), boolean()) -> boolean().
filter(_Trace, _Process, _Filtered) -> ?STUB.

%% No callback finds the trace any more. Then a barrier over all schedulers, then free/1, until it is not busy.
-spec shut(trace()) -> ok.
shut(_Trace) -> ?STUB.

-spec free(trace()) -> ok | busy.
free(_Trace) -> ?STUB.

-spec usage() -> {Open :: non_neg_integer(), Buried :: non_neg_integer(), Bytes :: non_neg_integer()}.
usage() -> ?STUB.

%% What the library reads of terms directly; for beamtrace_native_check.
-spec layout(pos_integer(), boolean(), Bits, Bits) -> ok when
    Bits :: [pid() | port() | {pid() | port(), non_neg_integer(), non_neg_integer()}].
layout(_Otp, _AliasHasProcess, _Pids, _Ports) -> ?STUB.

-spec identity(term()) ->
    {
        Low :: non_neg_integer(),
        High :: non_neg_integer(),
        {non_neg_integer(), non_neg_integer(), non_neg_integer()},
        Flags :: non_neg_integer(),
        node() | 0,
        Creation :: non_neg_integer()
    }
    | false.
identity(_Term) -> ?STUB.

-spec shape(term()) -> {non_neg_integer(), tag(), tag()}.
shape(_Term) -> ?STUB.

-spec args([term()]) -> {non_neg_integer(), tag(), tag()}.
args(_Args) -> ?STUB.

-spec initial_call(term(), term(), term()) -> {module() | 0, atom() | 0, arity()}.
initial_call(_Module, _Function, _Args) -> ?STUB.

%% Called by the VM.
-spec enabled(atom(), non_neg_integer(), pid() | port()) -> trace | discard | remove.
enabled(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_call(atom(), non_neg_integer(), pid()) -> trace | discard.
enabled_call(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_garbage_collection(atom(), non_neg_integer(), pid()) -> trace | discard.
enabled_garbage_collection(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_ports(atom(), non_neg_integer(), port()) -> trace | discard.
enabled_ports(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_procs(atom(), non_neg_integer(), pid()) -> trace | discard.
enabled_procs(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_receive(atom(), non_neg_integer(), pid() | port()) -> trace | discard.
enabled_receive(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_running_ports(atom(), non_neg_integer(), port()) -> trace | discard.
enabled_running_ports(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_running_procs(atom(), non_neg_integer(), pid()) -> trace | discard.
enabled_running_procs(_Tag, _State, _Tracee) -> ?STUB.
-spec enabled_send(atom(), non_neg_integer(), pid() | port()) -> trace | discard.
enabled_send(_Tag, _State, _Tracee) -> ?STUB.

-spec trace(atom(), non_neg_integer(), pid() | port(), term(), map()) -> ok.
trace(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_call(atom(), non_neg_integer(), pid(), term(), map()) -> ok.
trace_call(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_garbage_collection(atom(), non_neg_integer(), pid(), term(), map()) -> ok.
trace_garbage_collection(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_ports(atom(), non_neg_integer(), port(), term(), map()) -> ok.
trace_ports(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_procs(atom(), non_neg_integer(), pid(), term(), map()) -> ok.
trace_procs(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_receive(atom(), non_neg_integer(), pid() | port(), term(), map()) -> ok.
trace_receive(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_running_ports(atom(), non_neg_integer(), port(), term(), map()) -> ok.
trace_running_ports(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_running_procs(atom(), non_neg_integer(), pid(), term(), map()) -> ok.
trace_running_procs(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
-spec trace_send(atom(), non_neg_integer(), pid() | port(), term(), map()) -> ok.
trace_send(_Tag, _State, _Tracee, _Term, _Options) -> ?STUB.
