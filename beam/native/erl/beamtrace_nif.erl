%% The native tracer's library (beam/native): callbacks of erl_tracer, which the VM calls in traced processes, and what
%% beamtrace_native needs to drain what they record. A module of its own, outside of the agent, because the VM calls it by these
%% names; it is loaded when the first native trace is wanted (beamtrace_native_loader). Without the library every function raises `beamtrace_nif`.
-module(beamtrace_nif).

-export([load/1]).
-export([open/4, drain/2, mask/2, filter/3, shut/1, free/1, reap/1, usage/0]).
-export([touch/2, overwrite/1, trigger/4, arm/1, look/1, window/3, peek/2, contents/2, name_fun/3]).
-export([share/2, produced/1, mark/5]).
-export([enter/2, enter/3, enter/4, enter/5, enter/6, enter/7, enter/8, enter_list/3, leave/4, tail/3, exception/6]).
-export([instrumented/3, hide/2, scheduler/1]).
-export([layout/5, readable/1, show/3, proven/1, identity/1, shape/1, args/1, initial_call/3]).
-export([enabled/3, enabled_call/3, enabled_garbage_collection/3, enabled_ports/3, enabled_procs/3, enabled_receive/3]).
-export([enabled_running_ports/3, enabled_running_procs/3, enabled_send/3]).
-export([trace/5, trace_garbage_collection/5, trace_ports/5, trace_procs/5, trace_receive/5]).
-export([trace_running_ports/5, trace_running_procs/5]).
-export_type([trace/0, wanted/0, fun_id/0]).

-nifs([open/4, drain/2, mask/2, filter/3, shut/1, free/1, reap/1, usage/0]).
-nifs([touch/2, overwrite/1, trigger/4, arm/1, look/1, window/3, peek/2, contents/2, name_fun/3]).
-nifs([share/2, produced/1, mark/5]).
-nifs([enter/2, enter/3, enter/4, enter/5, enter/6, enter/7, enter/8, enter_list/3, leave/4, tail/3, exception/6]).
-nifs([instrumented/3, hide/2, scheduler/1]).
-nifs([layout/5, readable/1, show/3, proven/1, identity/1, shape/1, args/1, initial_call/3]).
-nifs([enabled/3, enabled_call/3, enabled_garbage_collection/3, enabled_ports/3, enabled_procs/3, enabled_receive/3]).
-nifs([enabled_running_ports/3, enabled_running_procs/3, enabled_send/3]).
-nifs([trace/5, trace_garbage_collection/5, trace_ports/5, trace_procs/5, trace_receive/5]).
-nifs([trace_running_ports/5, trace_running_procs/5]).

-define(STUB, erlang:nif_error(beamtrace_nif)).

-type trace() :: reference().
-type tag() :: atom() | 0.
%% Contents up to so many bytes; keys whose values are not to be shown; this node, as its terms are told.
-type wanted() :: {pos_integer(), [atom() | binary()], node(), non_neg_integer()}.
%% A local fun, by what its entry says of it.
-type fun_id() :: {
    module(), Index :: non_neg_integer(), Unique :: non_neg_integer(), OldIndex :: non_neg_integer(), arity(), Md5 :: binary()
}.

%% Path without `.so`. Only the module itself can load its library.
-spec load(file:filename()) -> ok | {error, {atom(), string()}}.
load(Path) -> erlang:load_nif(Path, 0).

%% A trace: so many rings of so many records; `{Shapes, SchedulerIds, Kinds}`; whose processes are not to be seen. The tracer for the
%% VM is `{beamtrace_nif, State}`; stamps count from `Base`, nanoseconds of monotonic time.
-spec open(
    pos_integer(), pos_integer(), {boolean() | wanted(), boolean(), non_neg_integer()}, {pid(), node() | undefined, [module()]}
) -> {trace(), State :: non_neg_integer(), Base :: integer()} | {error, full | memory | unproven | contents}.
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

%% Of a trace with contents: records as drain/2 or peek/2 gave them, without their continuations, and what these held (docs/agent-protocol.md,
%% "Native batches"); or local funs whose names it must be told first.
-spec contents(trace(), binary()) ->
    {Records :: binary(), Contents :: binary(), Dictionary :: [{non_neg_integer(), atom()}]} | {funs, [fun_id()]}.
contents(_Trace, _Records) -> ?STUB.

-spec name_fun(trace(), fun_id(), atom()) -> ok.
name_fun(_Trace, _Fun, _Name) -> ?STUB.

%% A slice of the rings' pages, from a byte on: the system makes them now, not in the traced process that is the first to write there.
-spec touch(trace(), non_neg_integer()) -> Next :: pos_integer() | done.
touch(_Trace, _From) -> ?STUB.

-spec mask(trace(), non_neg_integer()) -> ok.
mask(_Trace, _Kinds) -> ?STUB.

-spec filter(trace(), pid() | port(), boolean()) -> boolean().
filter(_Trace, _Process, _Filtered) -> ?STUB.

%% No callback finds the trace any more. Then a barrier over all schedulers, then free/1, until it is not busy.
-spec shut(trace()) -> ok.
shut(_Trace) -> ?STUB.

-spec free(trace()) -> ok | busy.
free(_Trace) -> ?STUB.

%% Memory of traces whose process was killed: frees those up to a number that was told before a barrier over all schedulers.
-spec reap(non_neg_integer()) -> {Last :: non_neg_integer(), Left :: non_neg_integer()}.
reap(_Upto) -> ?STUB.

-spec usage() -> {Open :: non_neg_integer(), Buried :: non_neg_integer(), Bytes :: non_neg_integer()}.
usage() -> ?STUB.

%% Full rings give up their oldest records instead of dropping the newest; before flags are set.
-spec overwrite(trace()) -> ok.
overwrite(_Trace) -> ?STUB.

%% What the flight recorder is to notice: exits that are not orderly, or messages to the process of a slot; `Number` is told when it happens.
-spec trigger(trace(), exit | 0..7, pid() | none, non_neg_integer()) -> ok.
trigger(_Trace, _Which, _Process, _Number) -> ?STUB.

-spec arm(trace()) -> ok.
arm(_Trace) -> ?STUB.

%% What has fired; records written ever; `Lost`, `Filtered` and `News` since the last look, as drain/2 tells them.
-spec look(trace()) ->
    {
        none | {Number :: non_neg_integer(), Stamp :: integer(), pid() | port() | none},
        Written :: non_neg_integer(),
        Lost :: non_neg_integer(),
        Suppressed :: non_neg_integer(),
        Filtered :: non_neg_integer(),
        Now :: non_neg_integer(),
        News :: [pid() | port()]
    }.
look(_Trace) -> ?STUB.

%% From the first of these stamps on, or from where all rings still have everything, up to the second: what peek/2 reads.
-spec window(trace(), integer(), integer()) ->
    {Start :: integer(), Before :: non_neg_integer(), Count :: non_neg_integer()}.
window(_Trace, _From, _To) -> ?STUB.

-spec peek(trace(), pos_integer()) ->
    {
        Done :: boolean(),
        Count :: non_neg_integer(),
        Records :: binary(),
        Dictionary :: [{non_neg_integer(), atom()}],
        Gone :: non_neg_integer(),
        Cut :: integer()
    }.
peek(_Trace, _Max) -> ?STUB.

%% These three take the tracer's state instead of the trace, from any process: sampling.h. `false`: there is no such trace any more.
%% Who is in the sample from now on: processes whose erlang:phash2/1 is below the threshold; 2^27 for all.
-spec share(State :: non_neg_integer(), Threshold :: non_neg_integer()) -> boolean().
share(_State, _Threshold) -> ?STUB.

%% What the callbacks have made so far, what was lost or filtered included; how many processes were born outside of the sample; how many bytes of
%% contents are or were in the rings; and how many records of each kind were drained.
-spec produced(State :: non_neg_integer()) ->
    {Produced :: non_neg_integer(), Outside :: non_neg_integer(), Contents :: non_neg_integer(), Kinds :: [non_neg_integer()]} | false.
produced(_State) -> ?STUB.

%% A marker in the ring; `false` when there is no room.
-spec mark(State :: non_neg_integer(), Name :: atom(), pid() | port() | undefined, A :: number(), B :: number()) -> boolean().
mark(_State, _Name, _Process, _A, _B) -> ?STUB.

%% Called by instrumented code through beamtrace_rt (frames.h). `enter` gives the frame's id, even, or 0 where no trace takes the frame.
-spec enter(module(), non_neg_integer()) -> non_neg_integer().
enter(_M, _Site) -> ?STUB.
-spec enter(module(), non_neg_integer(), term()) -> non_neg_integer().
enter(_M, _Site, _A) -> ?STUB.
-spec enter(module(), non_neg_integer(), term(), term()) -> non_neg_integer().
enter(_M, _Site, _A, _B) -> ?STUB.
-spec enter(module(), non_neg_integer(), term(), term(), term()) -> non_neg_integer().
enter(_M, _Site, _A, _B, _C) -> ?STUB.
-spec enter(module(), non_neg_integer(), term(), term(), term(), term()) -> non_neg_integer().
enter(_M, _Site, _A, _B, _C, _D) -> ?STUB.
-spec enter(module(), non_neg_integer(), term(), term(), term(), term(), term()) -> non_neg_integer().
enter(_M, _Site, _A, _B, _C, _D, _E) -> ?STUB.
-spec enter(module(), non_neg_integer(), term(), term(), term(), term(), term(), term()) -> non_neg_integer().
enter(_M, _Site, _A, _B, _C, _D, _E, _F) -> ?STUB.
-spec enter_list(module(), non_neg_integer(), [term()]) -> non_neg_integer().
enter_list(_M, _Site, _Arguments) -> ?STUB.
-spec leave(non_neg_integer(), module(), non_neg_integer(), term()) -> ok.
leave(_Id, _M, _Site, _Result) -> ?STUB.
-spec tail(non_neg_integer(), module(), non_neg_integer()) -> ok.
tail(_Id, _M, _Site) -> ?STUB.
-spec exception(non_neg_integer(), module(), non_neg_integer(), error | exit | throw, term(), [term()]) -> ok.
exception(_Id, _M, _Site, _Class, _Reason, _Stack) -> ?STUB.

%% The trace takes frames of these modules in these processes from now on; `false`: too many. Once a trace.
-spec instrumented(trace(), [module()] | all, [pid()] | all) -> boolean().
instrumented(_Trace, _Modules, _Processes) -> ?STUB.

%% A process of beamtrace's, whose frames no trace takes.
-spec hide(pid(), boolean()) -> ok.
hide(_Process, _Hidden) -> ?STUB.

%% Tells the library which scheduler this is.
-spec scheduler(pos_integer()) -> ok.
scheduler(_Id) -> ?STUB.

%% What the library reads of terms directly; for beamtrace_native_check.
-spec layout(pos_integer(), boolean(), Bits, Bits, {Latin1 :: boolean(), WidePorts :: boolean()}) -> ok when
    Bits :: [pid() | port() | {pid() | port(), non_neg_integer(), non_neg_integer()}].
layout(_Otp, _AliasHasProcess, _Pids, _Ports, _External) -> ?STUB.

%% Whether what the library takes for the parts of a term is there at all.
-spec readable(term()) -> boolean().
readable(_Term) -> ?STUB.

%% What would be shipped of a term's contents.
-spec show(term(), wanted(), [{fun_id(), atom()}]) -> binary() | {funs, [fun_id()]}.
show(_Term, _Wanted, _Names) -> ?STUB.

%% `true` says that the check has been passed; without it there are no traces.
-spec proven(boolean()) -> boolean().
proven(_Said) -> ?STUB.

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

%% Called by the VM. Sends and calls come to trace/5 (see callbacks.h).
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
