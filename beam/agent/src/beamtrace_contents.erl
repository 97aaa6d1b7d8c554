%% Contents of native records, ready to be shipped: the library cuts and encodes them as beamtrace_trim does; what it can't find out by itself,
%% the names of local funs, is asked for here, once for each fun.
-module(beamtrace_contents).

-export([wanted/1, finish/2, fun_name/1, batch/4, bytes/1, pairs/2, joined/2]).

-export_type([mode/0, contents/0]).

-define(RECORD_BYTES, 64).
-define(FLAG_PAYLOAD, 1).

%% `<<Bytes:32/little, Term/binary>>` of each record with the flag, in their order; `none`: the trace has no contents.
-type contents() :: binary() | none.
-type mode() :: none | shape | {bytes, pos_integer(), beamtrace_trim:redact()}.

%% The first element of what beamtrace_nif:open/4 is asked for.
-spec wanted(mode()) -> boolean() | beamtrace_nif:wanted().
wanted({bytes, Max, Redact}) -> {Max, maps:keys(Redact), node(), erlang:system_info(creation)};
wanted(Mode) -> Mode =:= shape.

%% Records of a trace with contents, without the continuations that these lay in; and the contents of each record that has them, in their order.
-spec finish(beamtrace_nif:trace(), binary()) ->
    {Records :: binary(), Contents :: binary(), Dictionary :: [{non_neg_integer(), atom()}]}.
finish(_, <<>>) ->
    {<<>>, <<>>, []};
finish(Trace, Records) ->
    case beamtrace_nif:contents(Trace, Records) of
        {funs, Funs} ->
            _ = [ok = beamtrace_nif:name_fun(Trace, Fun, fun_name(Fun)) || Fun <- lists:usort(Funs)],
            finish(Trace, Records);
        Finished ->
            Finished
    end.

%% What fun_info/2 says of any fun of that entry: one without environment is made. The unique number has 32 bits, with a sign.
-spec fun_name(beamtrace_nif:fun_id()) -> atom().
fun_name({Module, Index, Unique, OldIndex, Arity, Md5}) ->
    <<OldUnique:32/signed>> = <<Unique:32>>,
    Ends = [part(Term) || Term <- [Module, OldIndex, OldUnique, self()]],
    Body = iolist_to_binary([<<Arity, Md5/binary, Index:32, 0:32>> | Ends]),
    Fun = binary_to_term(<<131, 112, (byte_size(Body) + 4):32, Body/binary>>),
    case erlang:fun_info(Fun, name) of
        {name, Name} when is_atom(Name) -> Name;
        {name, _} -> undefined
    end.

part(Term) ->
    <<131, Part/binary>> = term_to_binary(Term, [{minor_version, 2}]),
    Part.

%% A native batch as it is sent.
-spec batch({integer(), non_neg_integer(), integer(), non_neg_integer(), non_neg_integer()}, list(), contents(), binary()) -> tuple().
batch({Id, Seq, Base, Received, Lost}, Dictionary, none, Records) -> {3, Id, Seq, Base, Received, Lost, Dictionary, Records};
batch({Id, Seq, Base, Received, Lost}, Dictionary, Contents, Records) -> {4, Id, Seq, Base, Received, Lost, Dictionary, Contents, Records}.

-spec bytes(contents()) -> non_neg_integer().
bytes(none) -> 0;
bytes(Contents) -> byte_size(Contents).

%% Each record with what it has of the contents.
-spec pairs(binary(), contents()) -> [{Record :: binary(), Content :: binary()}].
pairs(<<>>, _) ->
    [];
pairs(All, Contents) ->
    %% Not by matching `_/binary`: the test of bits that OTP 25 makes of it is none that OTP 29 loads.
    {Record, Records} = split_binary(All, ?RECORD_BYTES),
    case word(Record, 4) band ?FLAG_PAYLOAD of
        0 ->
            [{Record, <<>>} | pairs(Records, Contents)];
        ?FLAG_PAYLOAD ->
            {Content, Rest} = split_binary(Contents, word(Contents, 0) + 4),
            [{Record, Content} | pairs(Records, Rest)]
    end.

word(Binary, At) -> binary:decode_unsigned(binary:part(Binary, At, 4), little).

%% The way back; `Like`: whether there are contents at all.
-spec joined([{binary(), binary()}], contents()) -> {binary(), contents()}.
joined(Pairs, Like) ->
    {Records, Contents} = lists:unzip(Pairs),
    Joined = iolist_to_binary(Contents),
    {iolist_to_binary(Records), if Like =:= none -> none; true -> Joined end}.
